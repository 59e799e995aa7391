//! Settings from every source, all mistakes at once, and secrets nowhere.

use std::io::Write;

use super::{Ran, run};

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

/// Runs `fanlight`, which must refuse its settings and say each of `parts`.
#[track_caller]
fn refused(arguments: &[&str], variables: &[(&str, &str)], parts: &[&str]) -> Ran {
    let ran = run(arguments, variables);
    assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
    for part in parts {
        assert!(ran.stderr.contains(part), "{arguments:?}: no {part:?} in\n{}", ran.stderr);
    }
    ran
}

#[test]
fn every_flag_variable_and_default_is_in_the_help() {
    let help = run(&["serve", "--help"], &[]);
    assert_eq!(help.code, 0);
    let expected = [
        ("--listen", "FANLIGHT_LISTEN, PORT", "127.0.0.1:8080"),
        ("--admin-listen", "FANLIGHT_ADMIN_LISTEN", "none"),
        ("--redis-url", "FANLIGHT_REDIS_URL, REDIS_URL", "none"),
        ("--redis-prefix", "FANLIGHT_REDIS_PREFIX", "fanlight:"),
        ("--node-id", "FANLIGHT_NODE_ID", "host name"),
        ("--channels", "FANLIGHT_CHANNELS", "jobs,pending-changes"),
        ("--max-connections", "FANLIGHT_MAX_CONNECTIONS", "100000"),
        ("--heartbeat", "FANLIGHT_HEARTBEAT", "25s"),
        ("--idle-timeout", "FANLIGHT_IDLE_TIMEOUT, SSE_IDLE_TIMEOUT_MS", "5m"),
        ("--max-age", "FANLIGHT_MAX_AGE", "12h"),
        ("--buffer-events", "FANLIGHT_BUFFER_EVENTS", "50"),
        ("--buffer-bytes", "FANLIGHT_BUFFER_BYTES", "256KiB"),
        ("--send-timeout", "FANLIGHT_SEND_TIMEOUT", "5s"),
        ("--max-event-bytes", "FANLIGHT_MAX_EVENT_BYTES", "256KiB"),
        ("--history-size", "FANLIGHT_HISTORY_SIZE", "1000"),
        ("--history-ttl", "FANLIGHT_HISTORY_TTL", "1h"),
        ("--drain", "FANLIGHT_DRAIN", "25s"),
        ("--trusted-proxies", "FANLIGHT_TRUSTED_PROXIES", "none"),
        ("--allowed-origins", "FANLIGHT_ALLOWED_ORIGINS", "same"),
        ("--insecure", "FANLIGHT_INSECURE", "false"),
        ("--api-keys", "FANLIGHT_API_KEYS", "none"),
        ("--jwt-secret", "FANLIGHT_JWT_SECRET", "none"),
        ("--jwt-public-key", "FANLIGHT_JWT_PUBLIC_KEY", "none"),
        ("--jwks-file", "FANLIGHT_JWKS_FILE, FANLIGHT_JWT_JWKS_FILE", "none"),
        ("--require-token", "FANLIGHT_REQUIRE_TOKEN", "false"),
        ("--log", "FANLIGHT_LOG", "info"),
        ("--log-format", "FANLIGHT_LOG_FORMAT", "auto"),
        ("--config", "FANLIGHT_CONFIG", ""),
    ];
    // The help is wrapped to the width of whoever reads it.
    let words = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for (flag, variables, default) in expected {
        let at = words.find(&format!("{flag} <")).or_else(|| words.find(&format!("{flag}[=<"))).expect(flag);
        let rest = &words[at..];
        assert!(rest.contains(&format!("[env: {variables}]")) && rest.contains(default), "{flag}");
    }
}

#[test]
fn every_mistake_of_every_source_is_printed_at_once_with_exit_code_2() {
    let file = file("history-size = 0\nheart-beat = '1s'\n");
    for command in [&["serve"][..], &[], &["config", "check"], &["config", "show"]] {
        let arguments = [command, &["--config", path(&file), "--drain", "soon"]].concat();
        let variables = [
            ("FANLIGHT_BUFFER_BYTES", "1"),
            ("PORT", "http"),
            ("SSE_IDLE_TIMEOUT_MS", "5m"),
            ("REDIS_URL", "http://shop:canary@cache:6379/0"),
        ];
        let why = [
            "--drain is \"soon\"; allowed: a duration",
            "FANLIGHT_BUFFER_BYTES is \"1\"; allowed: a size",
            "PORT is \"http\"; allowed: a port, like 8080",
            "SSE_IDLE_TIMEOUT_MS is \"5m\"; allowed: a number of milliseconds",
            "REDIS_URL is \"http://****@cache:6379/0\"; allowed: redis://",
            "history-size in ",
            "heart-beat in ",
            "did you mean heartbeat?",
        ];
        let ran = refused(&arguments, &variables, &why);
        assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    }
}

#[test]
fn the_variables_of_opentelemetry_are_checked_like_the_others() {
    let wrong = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "user:canary@collector"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("FANLIGHT_DRAIN", "soon"),
    ];
    for command in [&["config", "check"][..], &["config", "show"], &["serve"]] {
        let why = [
            "4 settings are wrong",
            "OTEL_EXPORTER_OTLP_ENDPOINT: allowed: a URL",
            "OTEL_TRACES_SAMPLER is \"sometimes\"; allowed: always_on, ",
            "OTEL_BSP_MAX_QUEUE_SIZE is \"many\"; allowed: a whole number",
            "FANLIGHT_DRAIN is ",
        ];
        let ran = refused(command, &wrong, &why);
        assert!(!ran.all().contains("canary"), "{}", ran.all());
    }
    let good =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"), ("OTEL_TRACES_SAMPLER", "always_off")];
    assert_eq!(run(&["config", "check"], &good).code, 0);
    refused(&["publish", "jobs", "1"], &wrong, &["OTEL_TRACES_SAMPLER", "OTEL_BSP_MAX_QUEUE_SIZE"]);
}

#[test]
fn check_says_what_it_checked() {
    let file = file("heartbeat = '1s'\n");
    let ran = run(&["config", "check"], &[("FANLIGHT_CONFIG", path(&file)), ("FANLIGHT_HEARTBEET", "1s")]);
    assert_eq!((ran.code, ran.stdout.contains(path(&file))), (0, true), "{}", ran.all());
    assert!(ran.stderr.contains("FANLIGHT_HEARTBEET is not a setting; did you mean FANLIGHT_HEARTBEAT?"));
}

#[test]
fn what_show_prints_is_read_back_to_the_same() {
    let variables = [
        ("FANLIGHT_CHANNELS", "a,b:*"),
        ("FANLIGHT_MAX_AGE", "0"),
        ("FANLIGHT_ALLOWED_ORIGINS", "https://a.example"),
    ];
    let shown = run(&["config", "show"], &variables);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let file = file(&shown.stdout);
    let again = run(&["config", "show", "--config", path(&file)], &[]);
    let values = |text: &str| {
        text.lines()
            .filter_map(|line| line.split_once("  #"))
            .map(|(value, _)| value.trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&shown.stdout), values(&again.stdout));
    let json: serde_json::Value =
        serde_json::from_str(&run(&["config", "show", "--json"], &variables).stdout).unwrap();
    assert_eq!(json["channels"]["name"], "FANLIGHT_CHANNELS");
    assert_eq!(json["max-age"]["value"], "0");
}

#[test]
fn an_open_node_beyond_loopback_is_refused_and_told_what_to_set() {
    let why = ["--listen is \"0.0.0.0:0\"", "FANLIGHT_API_KEYS", "--insecure"];
    refused(&["--listen", "0.0.0.0:0"], &[], &why);
    let elsewhere = ["config", "check", "--listen", "0.0.0.0:80", "--admin-listen"];
    refused(&[&elsewhere[..], &["0.0.0.0:81"]].concat(), &[], &["--admin-listen is \"0.0.0.0:81\""]);
    assert_eq!(run(&[&elsewhere[..], &["127.0.0.1:81"]].concat(), &[]).code, 0);
    assert_eq!(run(&[&elsewhere[..], &["0.0.0.0:80", "--insecure"]].concat(), &[]).code, 2, "the same twice");
    assert_eq!(run(&["config", "check", "--listen", "0.0.0.0:0", "--insecure"], &[]).code, 0);
    for key in ["FANLIGHT_API_KEYS", "FANLIGHT_JWT_SECRET"] {
        assert_eq!(run(&["config", "check", "--listen", "0.0.0.0:0"], &[(key, "k")]).code, 0, "{key}");
    }
}

#[test]
fn a_key_that_cannot_check_tokens_is_a_mistake_with_its_reason() {
    let jwks = file(r#"{"keys":[]}"#);
    let variables = [("FANLIGHT_JWKS_FILE", path(&jwks)), ("FANLIGHT_JWT_PUBLIC_KEY", "/nonexistent.pem")];
    let why = [
        "FANLIGHT_JWT_PUBLIC_KEY is \"/nonexistent.pem\"; allowed: a PEM public key",
        "No such file",
        "FANLIGHT_JWKS_FILE is ",
        "none of its 0 keys",
    ];
    refused(&["config", "check"], &variables, &why);
    refused(&["config", "check", "--require-token"], &[], &["FANLIGHT_JWT_SECRET"]);
    let short = run(&["config", "check", "--jwt-secret=short"], &[]);
    assert!(
        short.code == 0 && short.stderr.contains("guessing") && !short.stderr.contains("is short"),
        "{}",
        short.stderr
    );
}

#[test]
fn limits_are_read_and_their_mistakes_named() {
    let good = [
        "--max-per-ip=2",
        "--trusted-proxies=10.0.0.0/8,::1",
        "--connect-rate-per-ip=0",
        "--session-policy=replace",
    ];
    for flag in good {
        assert_eq!(run(&["config", "check", flag], &[]).code, 0, "{flag}");
    }
    let bad =
        ["--max-per-ip=-1", "--trusted-proxies=10.0.0.0/33", "--connect-rate-per-ip=fast", "--lease-ttl=1s"];
    for flag in bad {
        let name = flag.split('=').next().unwrap_or_default();
        refused(&["config", "check", flag], &[], &[name]);
    }
}

#[test]
fn no_secret_is_printed_whatever_is_right_or_wrong() {
    let broken = file("api-keys = 'canary\n");
    let jwks = file(r#"{"keys":[{"kty":"oct","k":"canary"}], canary"#);
    let wrong = file("api_keys = 'canary'\napi-key = 'canary'\n");
    let good = [
        ("FANLIGHT_API_KEYS", "canary-1,canary-2"),
        ("REDIS_URL", "redis://u:canary@localhost:1/0"),
        ("FANLIGHT_JWT_SECRET", "canary"),
    ];
    let bad = [
        ("FANLIGHT_API_KEYS", "canary canary"),
        ("REDIS_URL", "http://u:canary@localhost"),
        ("FANLIGHT_JWT_SECRET", "-----BEGIN canary"),
        ("FANLIGHT_JWT_PUBLIC_KEY", "-----BEGIN PRIVATE KEY-----canary"),
        ("FANLIGHT_JWKS_FILE", path(&jwks)),
    ];
    for variables in [&good[..], &bad] {
        for arguments in [
            &["config", "check"][..],
            &["config", "show"],
            &["config", "show", "--json"],
            &["config", "check", "--config", path(&broken)],
            &["config", "check", "--config", path(&wrong)],
            &["config", "check", "--drain=x"],
            &["config", "show", "--api-keys=canary", "--redis-url=rediss://:canary@h"],
            &["config", "show", "--api-keys=canary,", "--redis-url=canary"],
            &["config", "check", "--redis-url=redis://u:can/canary@h"],
            &["config", "check", "--redis-url=redis+sentinel://a,b/m?sentinel_password=x@canary&no=canary"],
        ] {
            let ran = run(arguments, variables);
            assert!(!ran.all().contains("canary"), "{arguments:?}: {}", ran.all());
        }
    }
}
