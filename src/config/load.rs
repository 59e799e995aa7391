//! Reads the sources: flag over environment over file over default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches};

use super::fallback::Fallback;
use super::mistake::{Mistake, Mistakes};
use super::table::{LIST, Preset, SETTINGS, SWITCH, Secrecy, Setting};
use super::{Config, keys, redis_url};
use crate::protocol::secret::MASK;
use crate::telemetry::{self, WrongVariable};

/// The flag that names the file.
pub const CONFIG_FLAG: &str = "config";
const CONFIG_VARIABLE: &str = "FANLIGHT_CONFIG";

/// Variables with our prefix that are not settings of a node.
const OTHER_VARIABLES: [&str; 4] = [CONFIG_VARIABLE, "FANLIGHT_URL", "FANLIGHT_API_KEY", "FANLIGHT_TOKEN"];

/// Set by Kubernetes in every container when there is a service called `fanlight`; nobody's mistake.
const KUBERNETES_VARIABLES: [&str; 2] = ["FANLIGHT_SERVICE_", "FANLIGHT_PORT"];

/// What can contradict each other: where a node listens, and by what it recognises callers.
const TOGETHER: [&str; 8] = [
    "listen",
    "admin-listen",
    "insecure",
    "api-keys",
    "jwt-secret",
    "jwt-public-key",
    "jwks-file",
    "require-token",
];

/// A shorter key is warned about: it can be guessed.
const GOOD_KEY_LEN: usize = 16;

/// A shorter secret for HS256 is warned about: any token tells whether a guess was right.
const GOOD_SECRET_LEN: usize = 32;

/// The environment as a value, so that tests pass their own.
pub type Environment = BTreeMap<String, String>;

/// The environment of this process; what is not UTF-8 is replaced and will not be allowed where it matters.
pub fn process_environment() -> Environment {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect()
}

/// The settings and where they came from.
#[derive(Debug)]
pub struct Loaded {
    /// The effective settings.
    pub config: Config,
    /// What is allowed but probably not meant; for the log.
    pub warnings: Vec<String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    pub(super) effective: Vec<Effective>,
}

/// One setting as it was found.
pub(super) struct Effective {
    pub(super) setting: &'static Setting,
    /// As it was given: may be a secret.
    pub(super) text: Option<String>,
    pub(super) source: Source,
    /// The variable of another name that it came from, and what that held.
    fallback: Option<(&'static Fallback, String)>,
}

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Flag,
    Variable(String),
    File(PathBuf),
    Default,
}

impl fmt::Debug for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {:?}", self.setting.name, self.source)
    }
}

impl Effective {
    /// The setting's name as the user gave it.
    pub(super) fn given_name(&self) -> String {
        match &self.source {
            Source::Flag => format!("--{}", self.setting.name),
            Source::Variable(name) => name.clone(),
            Source::File(path) => format!("{} in {}", self.setting.name, path.display()),
            Source::Default => self.setting.name.to_owned(),
        }
    }

    fn mistake(&self, allowed: impl Into<String>) -> Mistake {
        let given = self.fallback.as_ref().map(|(_, given)| given);
        let text = given.or(self.text.as_ref()).map_or("", String::as_str);
        let allowed = match self.fallback.as_ref().and_then(|(fallback, _)| fallback.allowed) {
            Some(allowed) => allowed.to_owned(),
            None => allowed.into(),
        };
        let name = self.given_name();
        match self.setting.secrecy {
            Secrecy::Open => Mistake::new(name, text, false, allowed),
            Secrecy::Secret => Mistake::new(name, text, true, allowed),
            Secrecy::Url => {
                let shown = redis_url::mask_wrong(text);
                Mistake::new(name, &shown, shown == MASK, allowed)
            }
            Secrecy::Pem => Mistake::new(name, text, keys::is_pem(text), allowed),
        }
    }
}

/// One flag per setting, and `--config`.
pub fn arguments() -> Vec<Arg> {
    std::iter::once(file_argument()).chain(SETTINGS.iter().map(argument)).collect()
}

/// The flags of the settings with these names, and `--config`: for a command that needs only some of a node's settings.
pub fn arguments_of(names: &[&str]) -> Vec<Arg> {
    let named = SETTINGS.iter().filter(|setting| names.contains(&setting.name));
    std::iter::once(file_argument()).chain(named.map(argument)).collect()
}

fn file_argument() -> Arg {
    Arg::new(CONFIG_FLAG)
        .long(CONFIG_FLAG)
        .value_name("FILE")
        .help_heading("Settings")
        .help(format!("TOML file with settings; flags and environment win over it [env: {CONFIG_VARIABLE}]"))
}

fn argument(setting: &'static Setting) -> Arg {
    let variables: Vec<_> = std::iter::once(setting.variable())
        .chain(setting.fallbacks.iter().map(|f| f.name.to_owned()))
        .collect();
    let default = match setting.default {
        Preset::Text(words) | Preset::Unset(words) => words,
    };
    let help = format!("{} [env: {}] [default: {default}]", setting.help, variables.join(", "));
    let long = format!("{help}\n[allowed: {}]", setting.allowed());
    let arg = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.placeholder)
        .help_heading("Settings")
        .help(help)
        .long_help(long);
    if setting.placeholder == SWITCH {
        return arg.num_args(0..=1).require_equals(true).default_missing_value("true");
    }
    arg
}

/// Reads every source and checks everything.
///
/// # Errors
/// All mistakes at once, each with its name as given, its value (masked if secret) and what is allowed.
pub fn load(flags: &ArgMatches, environment: &Environment) -> Result<Loaded, Mistakes> {
    let mut mistakes = Vec::new();
    let file = flag(flags, CONFIG_FLAG).or_else(|| variable(environment, CONFIG_VARIABLE)).map(PathBuf::from);
    let in_file = file.as_deref().map(|path| read_file(path, &mut mistakes)).unwrap_or_default();
    let effective: Vec<_> = SETTINGS
        .iter()
        .map(|setting| find(setting, flags, environment, file.as_deref().zip(in_file.get(setting.name))))
        .collect();
    // What a file that is wrong was to set is not known: it may have been the key that seems to be missing.
    let mut known = mistakes.is_empty();
    let mut config = Config::blank();
    for found in &effective {
        let allowed = found.text.as_ref().and_then(|text| (found.setting.set)(&mut config, text).err());
        if let Some(allowed) = allowed {
            mistakes.push(found.mistake(allowed));
            known &= !TOGETHER.contains(&found.setting.name);
        }
    }
    if known {
        mistakes.extend(contradictions(&config, &effective));
    }
    mistakes
        .extend(telemetry::mistakes(&|name| environment.get(name).cloned()).into_iter().map(of_telemetry));
    if !mistakes.is_empty() {
        return Err(Mistakes(mistakes));
    }
    let warnings = doubts(&config).into_iter().chain(unknown_variables(environment)).collect();
    Ok(Loaded { config, warnings, file, effective })
}

/// The variables of OpenTelemetry are settings too, though they have no flags.
fn of_telemetry(wrong: WrongVariable) -> Mistake {
    match wrong.value {
        Some(value) => Mistake::new(wrong.name, &value, false, wrong.allowed),
        None => Mistake::without_value(wrong.name, wrong.allowed),
    }
}

fn flag(flags: &ArgMatches, name: &str) -> Option<String> {
    flags.try_get_one::<String>(name).ok().flatten().cloned()
}

/// An empty variable counts as unset: `${NAME:-}` in a compose file makes one of every variable.
fn variable(environment: &Environment, name: &str) -> Option<String> {
    environment.get(name).filter(|value| !value.is_empty()).cloned()
}

fn find(
    setting: &'static Setting,
    flags: &ArgMatches,
    environment: &Environment,
    in_file: Option<(&Path, &String)>,
) -> Effective {
    let from = |text: String, source| Effective { setting, text: Some(text), source, fallback: None };
    if let Some(text) = flag(flags, setting.name) {
        return from(text, Source::Flag);
    }
    let name = setting.variable();
    if let Some(text) = variable(environment, &name) {
        return from(text, Source::Variable(name));
    }
    for fallback in setting.fallbacks {
        if let Some(text) = variable(environment, fallback.name) {
            let found = from((fallback.translate)(&text), Source::Variable(fallback.name.to_owned()));
            return Effective { fallback: Some((fallback, text)), ..found };
        }
    }
    match in_file {
        Some((path, text)) => from(text.clone(), Source::File(path.to_owned())),
        None => {
            let text = setting.default.text().map(str::to_owned);
            Effective { setting, text, source: Source::Default, fallback: None }
        }
    }
}

/// The file's settings as texts.
fn read_file(path: &Path, mistakes: &mut Vec<Mistake>) -> BTreeMap<String, String> {
    #[allow(clippy::disallowed_methods)] // before anything runs
    let content = match std::fs::read_to_string(path) {
        Ok(content) => content,
        Err(error) => {
            mistakes.push(Mistake::without_value(format!("--config {}", path.display()), error.to_string()));
            return BTreeMap::new();
        }
    };
    let table: toml::Table = match toml::from_str(&content) {
        Ok(table) => table,
        Err(error) => {
            // Not `error.to_string()`: it quotes the line, and the line may hold a secret.
            let line = content[..error.span().map_or(0, |span| span.start)].lines().count().max(1);
            let message = error.message().lines().next().unwrap_or("not TOML").to_owned();
            mistakes.push(Mistake::without_value(format!("{} line {line}", path.display()), message));
            return BTreeMap::new();
        }
    };
    table.into_iter().filter_map(|(key, value)| read_entry(path, key, value, mistakes)).collect()
}

fn read_entry(
    path: &Path,
    key: String,
    value: toml::Value,
    mistakes: &mut Vec<Mistake>,
) -> Option<(String, String)> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.name == key) else {
        let names = SETTINGS.iter().map(|setting| setting.name.to_owned());
        let hint = suggestion(&key.replace('_', "-"), names);
        let name = format!("{} in {}", key.escape_debug(), path.display());
        mistakes.push(Mistake::without_value(name, format!("there is no such setting{hint}")));
        return None;
    };
    let text = text_of(setting, value);
    if text.is_none() {
        let allowed = match setting.placeholder {
            LIST => "a string, or an array of strings without commas",
            _ => "a single value, not a list or a table",
        };
        mistakes.push(Mistake::without_value(
            format!("{key} in {}", path.display()),
            format!("must be {allowed}"),
        ));
    }
    text.map(|text| (key, text))
}

fn text_of(setting: &Setting, value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Some(value.to_string()),
        toml::Value::Array(entries) if setting.placeholder == LIST => {
            let texts: Option<Vec<_>> =
                entries.iter().map(|entry| entry.as_str().filter(|text| !text.contains(','))).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

/// `; did you mean X?` for a name that looks like X.
fn suggestion(name: &str, known: impl Iterator<Item = String>) -> String {
    let closest = known
        .map(|candidate| (strsim::jaro_winkler(name, &candidate), candidate))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .filter(|(similarity, _)| *similarity > 0.8);
    closest.map(|(_, candidate)| format!("; did you mean {candidate}?")).unwrap_or_default()
}

/// What each setting allows, and all together do not.
fn contradictions(config: &Config, effective: &[Effective]) -> Vec<Mistake> {
    let setting = |name: &str| effective.iter().find(|found| found.setting.name == name);
    let administered_at = if config.admin_listen.is_some() { "admin-listen" } else { "listen" };
    let open = setting(administered_at).and_then(|address| open_to_the_world(config, address));
    let same = config.admin_listen == Some(config.listen) && config.listen.port() != 0;
    let twice = setting("admin-listen").filter(|_| same);
    let twice = twice.map(|admin| admin.mistake("another address than --listen (FANLIGHT_LISTEN)"));
    let nobody = setting("require-token").filter(|_| config.require_token && config.tokens.is_empty());
    let nobody = nobody.map(|require| {
        require.mistake(
            "false, as long as no token can be checked; set --jwt-secret (FANLIGHT_JWT_SECRET), --jwt-public-key or \
             --jwks-file",
        )
    });
    open.into_iter().chain(twice).chain(nobody).collect()
}

/// A node that anybody can reach must not let anybody publish.
fn open_to_the_world(config: &Config, address: &Effective) -> Option<Mistake> {
    if !config.is_reachable_from_outside() || !config.is_open() || config.insecure {
        return None;
    }
    Some(address.mistake(
        "an address that only this machine reaches (127.0.0.1), as long as anybody may publish; \
         set --api-keys (FANLIGHT_API_KEYS) or --jwt-secret (FANLIGHT_JWT_SECRET), or --insecure \
         (FANLIGHT_INSECURE=true) if that is meant",
    ))
}

/// What is allowed but probably not meant.
fn doubts(config: &Config) -> Vec<String> {
    let mut doubts = Vec::new();
    if config.insecure && config.is_open() && config.is_reachable_from_outside() {
        doubts.push(format!(
            "INSECURE: anybody who reaches {} may publish and administer",
            config.administered_at()
        ));
    }
    if config.api_keys.iter().any(|key| key.expose().len() < GOOD_KEY_LEN) {
        doubts.push(format!("an API key has fewer than {GOOD_KEY_LEN} characters and can be guessed"));
    }
    if config.tokens.secret.as_ref().is_some_and(|secret| secret.expose().len() < GOOD_SECRET_LEN) {
        doubts.push(format!(
            "jwt-secret has fewer than {GOOD_SECRET_LEN} bytes: whoever sees one token can find it by guessing \
             (RFC 7518, section 3.2)"
        ));
    }
    if config.streams.buffer_bytes < config.max_event_bytes {
        doubts.push(
            "buffer-bytes is below max-event-bytes: one large event closes a client that waits".to_owned(),
        );
    }
    doubts
}

fn unknown_variables(environment: &Environment) -> Vec<String> {
    let fallbacks = || SETTINGS.iter().flat_map(|setting| setting.fallbacks).map(|f| f.name.to_owned());
    let settings = || SETTINGS.iter().map(Setting::variable).chain(fallbacks());
    let known = || settings().chain(OTHER_VARIABLES.map(str::to_owned));
    let unknown = environment.keys().filter(|name| {
        name.starts_with("FANLIGHT_")
            && !KUBERNETES_VARIABLES.iter().any(|prefix| name.starts_with(prefix))
            && known().all(|candidate| candidate != **name)
    });
    unknown
        .map(|name| {
            format!("the variable {} is not a setting{}", name.escape_debug(), suggestion(name, known()))
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    pub(in super::super) fn flags(arguments: &[&str]) -> ArgMatches {
        let command = clap::Command::new("fanlight").args(super::arguments());
        command.get_matches_from(std::iter::once("fanlight").chain(arguments.iter().copied()))
    }

    pub(in super::super) fn environment(entries: &[(&str, &str)]) -> Environment {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn file(content: &str) -> (tempfile::NamedTempFile, String) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let flag = format!("--config={}", file.path().display());
        (file, flag)
    }

    fn mistakes(arguments: &[&str], entries: &[(&str, &str)]) -> Vec<String> {
        let found = load(&flags(arguments), &environment(entries)).map(drop).unwrap_err();
        found.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn flags_win_over_environment_over_file_over_default() {
        let (_file, path) = file("heartbeat = '1s'\nmax-age = '1s'\ndrain = '1s'");
        let environment = environment(&[("FANLIGHT_HEARTBEAT", "2s"), ("FANLIGHT_MAX_AGE", "2s")]);
        let config = load(&flags(&[&path, "--heartbeat=3s"]), &environment).unwrap().config;
        assert_eq!(config.streams.heartbeat, Duration::from_secs(3));
        assert_eq!(config.streams.max_age, Some(Duration::from_secs(2)));
        assert_eq!(config.drain, Duration::from_secs(1));
        assert_eq!(config.streams.send_timeout, Duration::from_secs(5));
    }

    #[test]
    fn foreign_variables_are_read_when_ours_are_unset_or_empty() {
        let foreign = [
            ("PORT", "9000"),
            ("SSE_IDLE_TIMEOUT_MS", "1500"),
            ("REDIS_URL", "redis://r"),
            ("FANLIGHT_LISTEN", ""),
        ];
        let config = load(&flags(&[]), &environment(&foreign)).unwrap().config;
        assert_eq!(config.listen.to_string(), "127.0.0.1:9000");
        assert_eq!(config.streams.idle_timeout, Some(Duration::from_millis(1500)));
        assert!(config.redis.url.is_some());
        let both = environment(&[("PORT", "9000"), ("FANLIGHT_LISTEN", "127.0.0.1:1")]);
        assert_eq!(load(&flags(&[]), &both).unwrap().config.listen.port(), 1);
    }

    #[test]
    fn all_mistakes_are_reported_together_under_the_names_that_were_given() {
        let (_file, path) =
            file("history_size = 5\nchannels = 'a b'\ndrain = [1]\nbogus = 'canary'\nbuffer-events = 0");
        let found = mistakes(
            &[&path, "--heartbeat=often"],
            &[("PORT", "http"), ("REDIS_URL", "canary"), ("FANLIGHT_API_KEYS", "canary canary")],
        );
        let file = path.trim_start_matches("--config=");
        let expected = [
            format!("bogus in {file}: there is no such setting"),
            format!("drain in {file}: must be a single value"),
            format!("history_size in {file}: there is no such setting; did you mean history-size?"),
            "PORT is \"http\"; allowed: a port, like 8080".to_owned(),
            "REDIS_URL is ****; allowed: redis://".to_owned(),
            format!("channels in {file} is \"a b\"; allowed: 1 to"),
            "--heartbeat is \"often\"; allowed: a duration".to_owned(),
            format!("buffer-events in {file} is \"0\"; allowed: a whole number from 1"),
            "FANLIGHT_API_KEYS is ****; allowed: up to".to_owned(),
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.starts_with(expected), "{found}\n{expected}");
            assert!(!found.contains("canary"), "{found}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_without_quoting_it() {
        let missing = mistakes(&["--config=/nonexistent/f.toml"], &[]);
        assert!(missing[0].starts_with("--config /nonexistent/f.toml: No such file"), "{missing:?}");
        let (_file, path) = file("drain = '1s'\napi-keys = 'canary\n");
        let broken = mistakes(&[&path], &[]);
        assert!(broken[0].contains("line 2") && !broken[0].contains("canary"), "{broken:?}");
    }

    #[test]
    fn beyond_loopback_a_key_or_insecure_is_required() {
        for address in ["--listen=0.0.0.0:80", "--listen=[::]:80", "--listen=10.0.0.1:80"] {
            let refused = mistakes(&[address], &[]);
            assert!(refused[0].contains("--api-keys") && refused[0].contains("--insecure"), "{refused:?}");
            assert!(
                load(&flags(&[address, "--api-keys=0123456789abcdef"]), &environment(&[]))
                    .unwrap()
                    .warnings
                    .is_empty()
            );
            let open = load(&flags(&[address, "--insecure"]), &environment(&[])).unwrap();
            assert!(open.warnings[0].starts_with("INSECURE"), "{:?}", open.warnings);
        }
        for address in [
            "--listen=127.0.0.7:80",
            "--listen=[::1]:80",
            "--listen=[::ffff:127.0.0.1]:80",
            "--listen=localhost:80",
        ] {
            assert!(load(&flags(&[address]), &environment(&[])).is_ok(), "{address}");
        }
    }

    #[test]
    fn a_mistaken_key_is_not_reported_as_a_missing_one_as_well() {
        assert_eq!(mistakes(&["--listen=0.0.0.0:80", "--api-keys=a b"], &[]).len(), 1);
        assert_eq!(mistakes(&["--require-token", "--jwks-file=/nonexistent"], &[]).len(), 1);
        let (_file, path) = file("api_keys = '0123456789abcdef'");
        assert_eq!(mistakes(&[&path, "--listen=0.0.0.0:80"], &[]).len(), 1);
    }

    #[test]
    fn a_missing_key_is_reported_together_with_mistakes_elsewhere() {
        let found = mistakes(&["--listen=0.0.0.0:80", "--require-token", "--heartbeat=often"], &[]);
        let names: Vec<_> = found.iter().map(|mistake| mistake.split(' ').next().unwrap()).collect();
        assert_eq!(names, ["--heartbeat", "--listen", "--require-token"]);
    }

    #[test]
    fn unknown_variables_with_our_prefix_are_warned_about() {
        let entries = [
            ("FANLIGHT_HEARTBEET", "canary"),
            ("FANLIGHT_URL", "x"),
            ("FANLIGHT_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("FANLIGHT_SERVICE_HOST", "10.0.0.1"),
            ("OTHER", "x"),
        ];
        let warnings = load(&flags(&[]), &environment(&entries)).unwrap().warnings;
        assert_eq!(
            warnings,
            ["the variable FANLIGHT_HEARTBEET is not a setting; did you mean FANLIGHT_HEARTBEAT?"]
        );
    }

    #[test]
    fn settings_of_other_versions_are_unknown() {
        let (_file, path) = file("otel-magic = 2");
        assert!(mistakes(&[&path], &[])[0].contains("there is no such setting"));
    }
}
