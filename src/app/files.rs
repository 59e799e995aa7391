//! How many files the process may open, and so how many streams.

/// Files that are no clients' sockets: Redis, pollers, the log, the listener.
const OWN_FILES: usize = 64;

/// Sockets kept for requests that are no streams, so that publishing and probes still work on a full node.
const REQUEST_SOCKETS: usize = 448;

/// The most streams without a setting that says so.
const DEFAULT_MAX: usize = 100_000;

/// Room for fewer streams than this is hardly meant, when no setting says how many are wanted: a usual machine's hard limit is
/// a hundred times as high.
const FEW_STREAMS: usize = 5_000;

/// What the limit of open files leaves room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Streams.
    pub(super) max_connections: usize,
    /// Streams and all other clients' sockets.
    pub(super) max_sockets: usize,
}

/// Raises the soft limit of open files to the hard one and divides it. A setting that does not fit is cut, with a
/// warning.
pub(super) fn budget(wanted: Option<usize>) -> Budget {
    let files = match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(files) => usize::try_from(files).unwrap_or(usize::MAX),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            rlimit::getrlimit(rlimit::Resource::NOFILE)
                .map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
        }
    };
    let budget = divide(files, wanted);
    if wanted.is_none() && budget.max_connections < FEW_STREAMS {
        tracing::warn!(
            open_files = files,
            streams = budget.max_connections,
            "the limit of open files leaves room for few streams; raise it (ulimit -n, LimitNOFILE=), or set \
             FANLIGHT_MAX_CONNECTIONS if so many are enough"
        );
    }
    if wanted.is_some_and(|wanted| wanted > budget.max_connections) {
        tracing::warn!(
            setting = "FANLIGHT_MAX_CONNECTIONS",
            wanted,
            granted = budget.max_connections,
            open_files = files,
            "the limit of open files leaves room for fewer streams; raise it (ulimit -n, LimitNOFILE=)"
        );
    }
    budget
}

fn divide(files: usize, wanted: Option<usize>) -> Budget {
    // A very small limit is halved rather than refused.
    let requests = REQUEST_SOCKETS.min(files / 4);
    let room = files.saturating_sub(OWN_FILES.min(files / 4) + requests).max(1);
    let max_connections = room.min(wanted.unwrap_or(DEFAULT_MAX));
    Budget { max_connections, max_sockets: max_connections + requests }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_requests_together_stay_below_the_limit_of_files() {
        for files in [64, 256, 1024, 20_000, 1_048_576, usize::MAX] {
            for wanted in [None, Some(1), Some(10_000), Some(5_000_000)] {
                let budget = divide(files, wanted);
                assert!(budget.max_sockets < files, "{files} {wanted:?} {budget:?}");
                assert!((1..budget.max_sockets).contains(&budget.max_connections));
                assert!(budget.max_connections <= wanted.unwrap_or(DEFAULT_MAX));
            }
        }
    }
}
