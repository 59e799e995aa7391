//! Printing: a line per examination for people, one object for machines.

use serde_json::{Value, json};

use super::advice::Between;
use super::exam::{End, Seen};
use super::finding::{Finding, Kind, seconds};
use crate::cli::output::{Look, Style};

/// For people.
pub(super) fn text(place: &str, seen: &Seen, findings: &[Finding], look: Look) -> String {
    let mut lines = vec![
        ("through", format!("{} to {place}", Between::guess(&seen.between).name())),
        ("first byte", seen.head.map_or_else(|| "never".to_owned(), seconds)),
        ("first block", seen.first_block.map_or_else(|| "never".to_owned(), seconds)),
        ("compression", seen.compression.clone().unwrap_or_else(|| "none".to_owned())),
    ];
    if seen.first_block.is_some() {
        lines.push(("watched", watched(seen)));
    }
    let mut text: String = lines
        .iter()
        .map(|(name, value)| {
            format!("{} {}\n", look.paint(Style::Dim, &format!("{name:<12}")), look.harmless(value))
        })
        .collect();
    for finding in findings {
        text += &format!("\n{} {}\n", look.paint(Style::Red, "found:"), look.harmless(&finding.words));
        text.extend(finding.settings.iter().map(|setting| format!("  change  {setting}\n")));
    }
    if findings.is_empty() {
        text += &format!("\n{}\n", verdict(seen));
    }
    text
}

fn watched(seen: &Seen) -> String {
    let life = format!(
        "{}, {} signs of life, at most {} without a byte",
        seconds(seen.watched),
        seen.signs_of_life,
        seconds(seen.longest_silence)
    );
    match seen.end {
        Some(End::Cut { .. }) => format!("{life}; then it was cut"),
        Some(End::ByTheNode) => format!("{life}; then the node closed it"),
        None => life,
    }
}

/// No more is said than was seen: a look without a heartbeat says nothing of idle time-outs beyond it.
fn verdict(seen: &Seen) -> String {
    if seen.signs_of_life == 0 {
        return "Nothing found in the first block. Look longer (--wait) to find an idle cut-off.".to_owned();
    }
    format!("Nothing stands in the way: not cut in {}, heartbeats come through.", seconds(seen.watched))
}

/// For machines.
pub(super) fn json(place: &str, seen: &Seen, findings: &[Finding]) -> Value {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let cut = match seen.end {
        Some(End::Cut { age, silence }) => json!({ "ageMs": millis(age), "silenceMs": millis(silence) }),
        _ => Value::Null,
    };
    let finding = |finding: &Finding| json!({ "code": Kind::code(finding.kind), "words": finding.words, "change": finding.settings });
    json!({
        "url": place,
        "proxy": Between::guess(&seen.between).name(),
        "firstByteMs": seen.head.map(millis),
        "firstBlockMs": seen.first_block.map(millis),
        "compression": seen.compression,
        "signsOfLife": seen.signs_of_life,
        "longestSilenceMs": millis(seen.longest_silence),
        "watchedMs": millis(seen.watched),
        "cut": cut,
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
