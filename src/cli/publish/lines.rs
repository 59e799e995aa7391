//! Standard input, line by line, in batches.

use anyhow::{Context, anyhow};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::cli::Failure;
use crate::protocol::request::MAX_EVENTS;

/// A batch ends with the line that passes this, in bytes: large enough that the round trip does not matter.
const BATCH_BYTES: usize = 256 << 10;

/// The longest line that is read, in bytes: more than any node takes as one event.
const MAX_LINE: usize = 64 << 20;

/// What is read ahead, in bytes. Lines that are there already travel in one request.
const READ_AHEAD: usize = 256 << 10;

/// Lines with their numbers, counted from 1.
pub(super) struct Lines<R> {
    input: BufReader<R>,
    /// Of the line that was read last.
    number: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn of(input: R) -> Self {
        Self { input: BufReader::with_capacity(READ_AHEAD, input), number: 0 }
    }

    /// The next lines with their numbers: waits for the first one, then takes what has been read already. Empty lines
    /// are passed over; nothing at all means the end.
    pub(super) async fn batch(&mut self) -> Result<Vec<(usize, String)>, Failure> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < MAX_EVENTS && bytes < BATCH_BYTES {
            let would_wait = !self.input.buffer().contains(&b'\n');
            if would_wait && !batch.is_empty() {
                break;
            }
            let Some(line) = self.next().await? else {
                break;
            };
            if !line.trim().is_empty() {
                bytes += line.len();
                batch.push((self.number, line));
            }
        }
        Ok(batch)
    }

    async fn next(&mut self) -> Result<Option<String>, Failure> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.input).take(MAX_LINE as u64 + 1);
        let read = bounded.read_until(b'\n', &mut line).await.context("standard input")?;
        self.number += 1;
        let number = self.number;
        if read > MAX_LINE {
            return Err(anyhow!("line {number} is longer than {MAX_LINE} bytes").into());
        }
        let line = String::from_utf8(line).map_err(|_| anyhow!("line {number} is not valid UTF-8"))?;
        Ok((read > 0).then_some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn batches(input: &str) -> Vec<Vec<(usize, String)>> {
        let mut lines = Lines::of(input.as_bytes());
        let mut batches = Vec::new();
        loop {
            match lines.batch().await.unwrap() {
                batch if batch.is_empty() => return batches,
                batch => batches.push(batch),
            }
        }
    }

    #[tokio::test]
    async fn lines_keep_their_order_and_number_over_batches_and_empty_lines() {
        let input: String =
            (1..=2500).map(|n| if n % 2 == 0 { "\n".into() } else { format!("{n}\r\n") }).collect();
        let batches = batches(&input).await;
        assert!(batches.iter().all(|batch| batch.len() <= MAX_EVENTS));
        let lines: Vec<_> = batches.into_iter().flatten().collect();
        assert_eq!(lines.len(), 1250);
        assert!(lines.iter().all(|(number, line)| line.trim() == number.to_string()), "{lines:?}");
    }

    #[tokio::test]
    async fn a_last_line_without_its_end_counts() {
        assert_eq!(batches("a\nb").await.concat(), [(1, "a\n".into()), (2, "b".into())]);
        assert!(batches("").await.is_empty() && batches("\n\n").await.is_empty());
    }
}
