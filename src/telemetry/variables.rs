//! The variables `OTEL_*`, as far as they are read here, and what is wrong with them. What the SDK takes for its default
//! without a word, when it does not understand it, is refused.

use std::fmt;

/// Reads a variable.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What the specification knows as sampler.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// Whole numbers; those of time are milliseconds.
const NUMBERS: [&str; 6] = [
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
];

/// The one for traces goes before the one for everything.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

/// A variable has a value that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct WrongVariable {
    /// The variable.
    pub name: &'static str,
    /// Its value; `None` where a secret may be in it.
    pub value: Option<String>,
    /// What would be right.
    pub allowed: String,
}

impl fmt::Display for WrongVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} is {value:?}; allowed: {}", self.name, self.allowed),
            None => write!(f, "{}: {}", self.name, self.allowed),
        }
    }
}

impl WrongVariable {
    fn new(name: &'static str, value: &str, allowed: impl Into<String>) -> Self {
        Self { name, value: Some(value.to_owned()), allowed: allowed.into() }
    }

    /// The exporter cannot be made, though each variable by itself is good. What it says may quote the endpoint, and with it
    /// a password.
    pub(super) fn unusable(variable: Variables<'_>, error: &dyn fmt::Display) -> Self {
        let (name, endpoint) = endpoint(variable).unwrap_or((ENDPOINTS[1], String::new()));
        let mut error = error.to_string();
        if !endpoint.is_empty() {
            error = error.replace(&endpoint, "****");
        }
        Self { name, value: None, allowed: format!("cannot be used: {error}") }
    }
}

/// Where spans go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Nowhere,
    Console,
    Grpc,
    Http,
}

impl Choice {
    /// Where the variables want them.
    ///
    /// # Errors
    /// All that are wrong, of those that count.
    pub(super) fn of(variable: Variables<'_>) -> Result<Self, Vec<WrongVariable>> {
        let mut wrong: Vec<_> =
            [sampler(variable).err(), share(variable).err()].into_iter().flatten().collect();
        wrong.extend(NUMBERS.iter().filter_map(|name| number(variable, name).err()));
        let choice = exporter(variable).unwrap_or_else(|error| {
            wrong.push(error);
            Self::Nowhere
        });
        if matches!(choice, Self::Grpc | Self::Http) {
            wrong.extend(checked_endpoint(variable, choice).err());
        }
        if wrong.is_empty() { Ok(choice) } else { Err(wrong) }
    }
}

fn exporter(variable: Variables<'_>) -> Result<Choice, WrongVariable> {
    if set(variable, "OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(Choice::Nowhere);
    }
    match set(variable, "OTEL_TRACES_EXPORTER").as_deref() {
        Some("none") => Ok(Choice::Nowhere),
        None if endpoint(variable).is_none() => Ok(Choice::Nowhere),
        Some("console") => Ok(Choice::Console),
        Some("otlp") | None => protocol(variable),
        Some(other) => Err(WrongVariable::new("OTEL_TRACES_EXPORTER", other, "none, otlp or console")),
    }
}

fn protocol(variable: Variables<'_>) -> Result<Choice, WrongVariable> {
    let Some((name, protocol)) = first(variable, PROTOCOLS) else { return Ok(Choice::Http) };
    match protocol.as_str() {
        "grpc" => Ok(Choice::Grpc),
        "http/protobuf" => Ok(Choice::Http),
        other => Err(WrongVariable::new(name, other, "grpc or http/protobuf")),
    }
}

/// The sampler's name; empty without one.
pub(super) fn sampler(variable: Variables<'_>) -> Result<String, WrongVariable> {
    let name = set(variable, "OTEL_TRACES_SAMPLER").unwrap_or_default();
    if name.is_empty() || SAMPLERS.contains(&name.as_str()) {
        return Ok(name);
    }
    Err(WrongVariable::new("OTEL_TRACES_SAMPLER", &name, SAMPLERS.join(", ")))
}

/// The share of a ratio, 0 to 1; without one all, as the specification has it.
pub(super) fn share(variable: Variables<'_>) -> Result<f64, WrongVariable> {
    let by_ratio = set(variable, "OTEL_TRACES_SAMPLER").is_some_and(|name| name.ends_with("traceidratio"));
    let text = set(variable, "OTEL_TRACES_SAMPLER_ARG").filter(|_| by_ratio);
    let text = text.as_deref().unwrap_or("1");
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| WrongVariable::new("OTEL_TRACES_SAMPLER_ARG", text, "0 to 1"))
}

fn number(variable: Variables<'_>, name: &'static str) -> Result<(), WrongVariable> {
    match set(variable, name) {
        Some(text) if text.parse::<u32>().is_err() => Err(WrongVariable::new(name, &text, "a whole number")),
        _ => Ok(()),
    }
}

/// Where the collector is, and which variable says so; the SDK reads it too.
pub(super) fn endpoint(variable: Variables<'_>) -> Option<(&'static str, String)> {
    first(variable, ENDPOINTS)
}

/// gRPC is also reached at a mere `host:port`.
fn checked_endpoint(variable: Variables<'_>, choice: Choice) -> Result<(), WrongVariable> {
    let Some((name, endpoint)) = endpoint(variable) else { return Ok(()) };
    let bare = choice == Choice::Grpc && !endpoint.contains("://");
    let url = if bare { format!("http://{endpoint}") } else { endpoint };
    let parsed = url.parse::<http::Uri>().ok();
    let known =
        parsed.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    // The value is not shown: a URL may hold a password.
    let allowed = "allowed: a URL, as http://collector:4318".to_owned();
    known.map(drop).ok_or(WrongVariable { name, value: None, allowed })
}

fn first(variable: Variables<'_>, names: [&'static str; 2]) -> Option<(&'static str, String)> {
    names.into_iter().find_map(|name| Some((name, set(variable, name)?)))
}

/// A variable's value. Empty is not set, by the specification.
fn set(variable: Variables<'_>, name: &str) -> Option<String> {
    variable(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(variables: &[(&str, &str)]) -> Result<Choice, Vec<String>> {
        let read = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Choice::of(&read).map_err(|wrong| wrong.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn no_endpoint_is_no_exporter_and_the_variables_of_the_specification_decide() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let exporter = |name| ("OTEL_TRACES_EXPORTER", name);
        assert_eq!(choice(&[]), Ok(Choice::Nowhere));
        assert_eq!(choice(&[endpoint]), Ok(Choice::Http));
        assert_eq!(choice(&[endpoint, grpc]), Ok(Choice::Grpc));
        assert_eq!(choice(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"), grpc]), Ok(Choice::Grpc));
        assert_eq!(choice(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(Choice::Nowhere));
        assert_eq!(choice(&[endpoint, exporter("none")]), Ok(Choice::Nowhere));
        assert_eq!(choice(&[exporter("console")]), Ok(Choice::Console));
        assert_eq!(choice(&[exporter("otlp")]), Ok(Choice::Http));
    }

    #[test]
    fn a_wrong_value_is_told_with_its_name_and_what_is_allowed() {
        let wrong = [
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_EXPORTER", "jaeger"),
        ];
        let told = choice(&wrong).unwrap_err();
        assert_eq!(told.len(), wrong.len());
        for ((name, value), told) in wrong.iter().zip(&told) {
            assert!(told.starts_with(&format!("{name} is {value:?}; allowed: ")), "{told}");
        }
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
        for name in PROTOCOLS {
            let told = choice(&[endpoint, (name, "http/json")]).unwrap_err();
            assert_eq!(told, [format!("{name} is \"http/json\"; allowed: grpc or http/protobuf")]);
        }
    }

    #[test]
    fn a_share_is_from_none_to_all_and_only_asked_of_a_ratio() {
        let share = |sampler: &str, arg: &str| {
            share(&|name| Some(if name == "OTEL_TRACES_SAMPLER" { sampler } else { arg }.to_owned()))
        };
        assert_eq!(share("traceidratio", "0.25"), Ok(0.25));
        assert_eq!(share("parentbased_traceidratio", ""), Ok(1.0));
        assert_eq!(share("always_on", "much"), Ok(1.0));
        for wrong in ["-0.1", "1.5", "NaN", "half"] {
            assert!(
                share("traceidratio", wrong).unwrap_err().to_string().contains("allowed: 0 to 1"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn an_endpoint_is_a_url_and_what_is_none_is_not_repeated() {
        for wrong in ["collector:4318", "ftp://user:canary@collector", "http://", "http://user:canary@a b"] {
            let told = choice(&[("OTEL_EXPORTER_OTLP_ENDPOINT", wrong)]).unwrap_err();
            assert!(told[0].starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: allowed: a URL"), "{told:?}");
            assert!(!told[0].contains("canary"), "{told:?}");
        }
        let said = "cannot reach https://user:canary@c/v1/traces";
        let variable = |name: &str| (name == ENDPOINTS[1]).then(|| "https://user:canary@c".to_owned());
        let told = WrongVariable::unusable(&variable, &said).to_string();
        assert_eq!(told, "OTEL_EXPORTER_OTLP_ENDPOINT: cannot be used: cannot reach ****/v1/traces");
    }
}
