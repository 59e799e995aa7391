//! Tokens that must not be accepted, each by its name, through a real node with keys of every kind.

use aws_lc_rs::hmac::{HMAC_SHA384, HMAC_SHA512};
use serde_json::{Value, json};

use super::forge::{Keys, b64, hs, hs256, message, now, token};
use crate::support::http::exchange;
use crate::support::{Node, SseClient};

/// A name and the token's bytes.
type Named = (&'static str, Vec<u8>);

const HS: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const RS: &str = r#"{"alg":"RS256","typ":"JWT"}"#;
const ES: &str = r#"{"alg":"ES256","typ":"JWT","kid":"ec-1"}"#;
const ED: &str = r#"{"alg":"EdDSA","typ":"JWT","kid":"ed-1"}"#;

/// Claims that would grant everything.
fn all() -> String {
    json!({ "exp": now() + 600, "fanlight": { "read": ["*"], "publish": ["*"], "admin": true } }).to_string()
}

/// The same with other members; a member that is there already is replaced.
fn all_but(more: Value) -> String {
    let mut claims: Value = serde_json::from_str(&all()).unwrap();
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims.to_string()
}

fn text(name: &'static str, token: impl Into<String>) -> Named {
    (name, token.into().into_bytes())
}

/// No signature, or an algorithm that is none.
fn algorithms(keys: &Keys) -> Vec<Named> {
    let unsigned = |name, header: &str| text(name, format!("{}.", message(header, all())));
    let signed = |name, header: &str| text(name, token(header, all(), keys.hs256()));
    vec![
        unsigned("alg none", r#"{"alg":"none"}"#),
        unsigned("alg None", r#"{"alg":"None"}"#),
        unsigned("alg NONE", r#"{"alg":"NONE"}"#),
        unsigned("alg nOnE", r#"{"alg":"nOnE"}"#),
        unsigned("alg none with spaces", r#"{"alg":" none "}"#),
        unsigned("HS256 without a signature", HS),
        unsigned("RS256 without a signature", RS),
        unsigned("ES256 without a signature", ES),
        signed("alg none with a right signature", r#"{"alg":"none"}"#),
        signed("alg empty", r#"{"alg":""}"#),
        signed("alg null", r#"{"alg":null}"#),
        signed("alg missing", r#"{"typ":"JWT"}"#),
        signed("alg a list", r#"{"alg":["HS256"]}"#),
        signed("alg a number", r#"{"alg":0}"#),
        signed("alg in small letters", r#"{"alg":"hs256"}"#),
        signed("alg with a NUL", r#"{"alg":"HS256\u0000"}"#),
        signed("alg of another hash", r#"{"alg":"HS512"}"#),
        signed("alg twice", r#"{"alg":"none","alg":"HS256"}"#),
        text(
            "HS384 with the right secret",
            token(r#"{"alg":"HS384"}"#, all(), hs(HMAC_SHA384, &keys.secret)),
        ),
        text(
            "HS512 with the right secret",
            token(r#"{"alg":"HS512"}"#, all(), hs(HMAC_SHA512, &keys.secret)),
        ),
        text("RS384 with the right key", token(r#"{"alg":"RS384"}"#, all(), |m| keys.rs384(m))),
        text("RS512 with the right key", token(r#"{"alg":"RS512"}"#, all(), |m| keys.rs512(m))),
        text("PS256 with the right key", token(r#"{"alg":"PS256"}"#, all(), |m| keys.ps256(m))),
    ]
}

/// A key used for what it is not, or somebody else's.
fn confusions(keys: &Keys) -> Vec<Named> {
    let stranger = Keys::new();
    let by = |name, key: &[u8]| text(name, token(HS, all(), hs256(key)));
    let pem = keys.rsa_pem();
    vec![
        by("HS256 with the public key's PEM", pem.as_bytes()),
        by("HS256 with the public key's PEM without its last newline", pem.trim_end().as_bytes()),
        by("HS256 with the public key's PEM without line ends", pem.replace('\n', "").as_bytes()),
        by("HS256 with the public key's DER", &keys.rsa_der()),
        by("HS256 with the point of the P-256 key", keys.ec_point()),
        by("HS256 with the x of the P-256 key", &keys.ec_point()[1..33]),
        by("HS256 with the bytes of the Ed25519 key", keys.ed_bytes()),
        by("HS256 with the key set", keys.jwks().as_bytes()),
        by("HS256 with no secret", b""),
        by("HS256 with a NUL", b"\0"),
        by("HS256 with the word secret", b"secret"),
        by("HS256 with the secret and a newline", format!("{}\n", keys.secret).as_bytes()),
        by("HS256 with half the secret", &keys.secret.as_bytes()[..32]),
        by("HS256 of a stranger", stranger.secret.as_bytes()),
        text("RS256 of a stranger", token(RS, all(), |m| stranger.rs256(m))),
        text("ES256 of a stranger", token(ES, all(), |m| stranger.es256(m))),
        text("EdDSA of a stranger", token(ED, all(), |m| stranger.eddsa(m))),
        text("RS256 that is an HMAC", token(RS, all(), keys.hs256())),
        text("ES256 that is an HMAC", token(ES, all(), keys.hs256())),
        text("EdDSA that is an HMAC", token(ED, all(), keys.hs256())),
        text("ES256 that is EdDSA", token(ES, all(), |m| keys.eddsa(m))),
        text("EdDSA that is ES256", token(ED, all(), |m| keys.es256(m))),
        text("HS256 that is RS256", token(HS, all(), |m| keys.rs256(m))),
    ]
}

/// A header that wants to be asked for the key, or brings it.
fn headers(keys: &Keys) -> Vec<Named> {
    let stranger = Keys::new();
    let empty = |name, kid: &str| {
        let header = json!({ "alg": "HS256", "kid": kid }).to_string();
        text(name, token(&header, all(), hs256("")))
    };
    let right = |name, more: Value| {
        let mut header = json!({ "alg": "HS256", "typ": "JWT" });
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        text(name, token(&header.to_string(), all(), keys.hs256()))
    };
    let brought = |name, more: Value| {
        let mut header = json!({ "alg": "ES256" });
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        text(name, token(&header.to_string(), all(), |m| stranger.es256(m)))
    };
    vec![
        empty("kid a path to nothing", "../../../../dev/null"),
        empty("kid an absolute path", "/dev/null"),
        empty("kid a file URL", "file:///dev/null"),
        empty("kid a web URL", "http://127.0.0.1:1/key"),
        empty("kid that selects from a table", "x' UNION SELECT '' --"),
        empty("kid that runs a command", "key; echo"),
        empty("kid with a NUL", "ec-1\0"),
        empty("kid of a key of another kind", "ec-1"),
        right("kid with quotes", json!({ "kid": "' OR '1'='1" })),
        right("kid empty", json!({ "kid": "" })),
        right("kid a number", json!({ "kid": 1 })),
        right("kid a list", json!({ "kid": ["ec-1"] })),
        right("kid too long", json!({ "kid": "k".repeat(129) })),
        text("kid of the other key", token(r#"{"alg":"ES256","kid":"ed-1"}"#, all(), |m| keys.es256(m))),
        text("kid of no key", token(r#"{"alg":"ES256","kid":"ec-2"}"#, all(), |m| keys.es256(m))),
        text("kid in capitals", token(r#"{"alg":"ES256","kid":"EC-1"}"#, all(), |m| keys.es256(m))),
        brought("jwk of the forger", json!({ "jwk": stranger.ec_jwk() })),
        brought("jwk of the forger under a known kid", json!({ "kid": "ec-1", "jwk": stranger.ec_jwk() })),
        brought("jku of the forger", json!({ "jku": "http://127.0.0.1:1/jwks.json" })),
        brought("x5u of the forger", json!({ "x5u": "http://127.0.0.1:1/cert.pem" })),
        brought("x5c of the forger", json!({ "x5c": [b64(stranger.ec_point())] })),
        right("jwk beside a right signature", json!({ "jwk": keys.ec_jwk() })),
        right("jku beside a right signature", json!({ "jku": "https://issuer.example/jwks" })),
        right("crit of something unknown", json!({ "crit": ["x"], "x": true })),
        right("crit of nothing", json!({ "crit": [] })),
        right("crit of an unencoded payload", json!({ "crit": ["b64"], "b64": false })),
        right("typ of a proof", json!({ "typ": "dpop+jwt" })),
        right("typ of a logout", json!({ "typ": "logout+jwt" })),
        right("typ of an encrypted token", json!({ "typ": "JWE" })),
        right("enc as in an encrypted token", json!({ "enc": "A256GCM" })),
    ]
}

/// Rightly signed, and wrong in what they say.
fn claims(keys: &Keys) -> Vec<Named> {
    let said = |name, claims: &str| text(name, token(HS, claims, keys.hs256()));
    let but = |name, more: Value| said(name, &all_but(more));
    let (past, later) = (now() - 1, now() + 600);
    let many: Vec<String> = (0..129).map(|i| format!("c{i}")).collect();
    vec![
        said("exp missing", r#"{"fanlight":{"read":["*"],"admin":true}}"#),
        but("exp null", json!({ "exp": null })),
        but("exp a string", json!({ "exp": later.to_string() })),
        but("exp a fraction", json!({ "exp": later as f64 + 0.5 })),
        said("exp in scientific notation", r#"{"exp":9e9}"#),
        but("exp negative", json!({ "exp": -1 })),
        but("exp zero", json!({ "exp": 0 })),
        said("exp beyond every float", r#"{"exp":1e400}"#),
        said("exp beyond 64 bits", r#"{"exp":18446744073709551616}"#),
        but("exp the greatest number", json!({ "exp": u64::MAX })),
        but("exp in milliseconds", json!({ "exp": later * 1000 })),
        but("exp an object", json!({ "exp": { "seconds": later } })),
        but("exp a list", json!({ "exp": [later] })),
        but("exp true", json!({ "exp": true })),
        said("exp not a number", r#"{"exp":NaN}"#),
        but("expired a second ago", json!({ "exp": past })),
        but("expired long ago", json!({ "exp": 1 })),
        said("exp twice, the last one good", &format!(r#"{{"exp":{past},"exp":{later}}}"#)),
        said("exp twice, the first one good", &format!(r#"{{"exp":{later},"exp":{past}}}"#)),
        but("nbf in an hour", json!({ "nbf": now() + 3600 })),
        but("nbf the greatest number", json!({ "nbf": u64::MAX })),
        but("nbf a string", json!({ "nbf": "0" })),
        but("nbf negative", json!({ "nbf": -1 })),
        but("nbf a fraction", json!({ "nbf": 0.5 })),
        but("aud another", json!({ "aud": "billing" })),
        but("aud others", json!({ "aud": ["billing", "mail"] })),
        but("aud nobody", json!({ "aud": [] })),
        but("aud empty", json!({ "aud": "" })),
        but("aud a number", json!({ "aud": 7 })),
        but("aud that begins like us", json!({ "aud": "fanlight.evil.example" })),
        but("aud in capitals", json!({ "aud": "FANLIGHT" })),
        but("aud a list in a list", json!({ "aud": [["fanlight"]] })),
        said("aud twice", &format!(r#"{{"exp":{later},"aud":"billing","aud":"fanlight"}}"#)),
        but("read a string", json!({ "fanlight": { "read": "*" } })),
        but("read not a channel", json!({ "fanlight": { "read": ["a b"] } })),
        but("read the word all", json!({ "fanlight": { "read": ["all"] } })),
        but("read two stars", json!({ "fanlight": { "read": ["**"] } })),
        but("read too many", json!({ "fanlight": { "read": many } })),
        but("admin a string", json!({ "fanlight": { "admin": "true" } })),
        but("admin a number", json!({ "fanlight": { "admin": 1 } })),
        but(
            "a permission with an unknown restriction",
            json!({ "fanlight": { "admin": true, "ip": "10.0.0.1" } }),
        ),
        but("permissions null", json!({ "fanlight": null })),
        but("permissions a list", json!({ "fanlight": ["*", ["*"], true, 1] })),
        said(
            "permissions twice",
            &format!(r#"{{"exp":{later},"fanlight":{{}},"fanlight":{{"admin":true}}}}"#),
        ),
    ]
}

/// Signatures of the right length, or nearly, that nobody made.
fn signatures(keys: &Keys) -> Vec<Named> {
    let with = |name, header: &str, signature: Vec<u8>| text(name, token(header, all(), |_| signature));
    // The order of the group of P-256 (SEC 2, section 2.4.2).
    let order = hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let twice = |half: &[u8]| [half, half].concat();
    let half = |m: &[u8]| [vec![0; 32], keys.es256(m)[32..].to_vec()].concat();
    let other_half = |m: &[u8]| [keys.es256(m)[..32].to_vec(), vec![0; 32]].concat();
    vec![
        with("ES256 of zeros", ES, vec![0; 64]),
        with("ES256 of ones", ES, twice(&[vec![0; 31], vec![1]].concat())),
        with("ES256 of the group's order", ES, twice(&order)),
        with("ES256 of zeros as DER", ES, vec![0x30, 6, 2, 1, 0, 2, 1, 0]),
        text("ES256 with a zero r", token(ES, all(), half)),
        text("ES256 with a zero s", token(ES, all(), other_half)),
        text("ES256 as DER", token(ES, all(), |m| der(&keys.es256(m)))),
        text("ES256 with a byte more", token(ES, all(), |m| [keys.es256(m), vec![0]].concat())),
        with("EdDSA of zeros", ED, vec![0; 64]),
        with("EdDSA of the neutral point", ED, [vec![1], vec![0; 63]].concat()),
        with("RS256 of zeros", RS, vec![0; 256]),
        with("RS256 that is one", RS, [vec![0; 255], vec![1]].concat()),
        text("RS256 with a byte less", token(RS, all(), |m| keys.rs256(m)[1..].to_vec())),
        with("HS256 of zeros", HS, vec![0; 32]),
        text("HS256 cut in half", token(HS, all(), |m| keys.hs256()(m)[..16].to_vec())),
        text("HS256 of one byte", token(HS, all(), |m| keys.hs256()(m)[..1].to_vec())),
        text("HS256 in hexadecimal", token(HS, all(), |m| to_hex(&keys.hs256()(m)).into_bytes())),
    ]
}

/// Parts that are missing, too many, exchanged, or written in another way.
fn shapes(keys: &Keys) -> Vec<Named> {
    let good = token(HS, all(), keys.hs256());
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let other = token(HS, all_but(json!({ "sub": "x" })), keys.hs256());
    let other: Vec<&str> = other.split('.').collect();
    let odd = token(HS, r#"{"exp":9999999999,"sub":"~~~???>>>"}"#, keys.hs256());
    let raw = |name, payload: &[u8]| text(name, token(HS, payload, keys.hs256()));
    let utf16: Vec<u8> = all().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let flattened = json!({ "protected": header, "payload": payload, "signature": signature }).to_string();
    let nested = token(r#"{"alg":"HS256","typ":"JWT","cty":"JWT"}"#, &good, keys.hs256());
    vec![
        text("a word", "token"),
        text("one dot", "."),
        text("two dots", ".."),
        text("the header alone", header),
        text("without a signature", format!("{header}.{payload}")),
        text("with an empty signature", format!("{header}.{payload}.")),
        text("with an empty payload", format!("{header}..{signature}")),
        text("with an empty header", format!(".{payload}.{signature}")),
        text("with a part more", format!("{good}.{signature}")),
        text("with a dot more", format!("{good}.")),
        text("with a dot before", format!(".{good}")),
        text("with five parts", format!("{header}.{payload}.{payload}.{payload}.{signature}")),
        text("the payload of another", format!("{header}.{}.{signature}", other[1])),
        text("the signature of another", format!("{header}.{payload}.{}", other[2])),
        text("cut by a character", &good[..good.len() - 1]),
        text("with a character more", format!("{good}A")),
        text("with padding", format!("{good}=")),
        text("in the other alphabet", odd.replace('-', "+").replace('_', "/")),
        text("in small letters", good.to_lowercase()),
        text("backwards", good.chars().rev().collect::<String>()),
        text("with a space", format!("{header}. {payload}.{signature}")),
        text("with a tab", format!("{header}.\t{payload}.{signature}")),
        text("with a line end", format!("{header}.{payload}.\n{signature}")),
        text("with its scheme twice", format!("Bearer {good}")),
        text("in quotes", format!("\"{good}\"")),
        text("with dots in percent", good.replace('.', "%2E")),
        text("with full-width dots", good.replace('.', "\u{ff0e}")),
        text("with a NUL", format!("{good}\0")),
        ("bytes that are no text", [good.as_bytes(), &[0xff, 0xfe, 0x80]].concat()),
        text("flattened JSON", flattened),
        text("a token in a token", nested),
        raw("payload that is no text", b"\xff\xfe{\"exp\":9999999999}"),
        raw("payload in UTF-16", &utf16),
        raw("payload with a byte order mark", format!("\u{feff}{}", all()).as_bytes()),
        raw("payload that is no JSON", b"exp=9999999999"),
        raw("payload a list", b"[9999999999]"),
        raw("payload null", b"null"),
        raw("payload a string", b"\"exp\""),
        raw("payload empty", b""),
        raw("payload with something after it", format!("{}{{}}", all()).as_bytes()),
        raw("payload with a comment", format!("/**/{}", all()).as_bytes()),
        raw("aud nested deeply", nested_claims(1_000).as_bytes()),
        text("header nested deeply", token(&nested_header(1_000), all(), keys.hs256())),
    ]
}

/// Larger than any head of a request.
fn giants(keys: &Keys) -> Vec<Named> {
    let padded = |bytes: usize| all_but(json!({ "sub": "x".repeat(bytes) }));
    vec![
        text("twelve thousand bytes", token(HS, padded(9_000), keys.hs256())),
        text("a megabyte", token(HS, padded(768 << 10), keys.hs256())),
        text("a megabyte of dots", ".".repeat(1 << 20)),
    ]
}

fn nested_claims(depth: usize) -> String {
    format!(r#"{{"exp":9999999999,"aud":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
}

fn nested_header(depth: usize) -> String {
    format!(r#"{{"alg":"HS256","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A fixed-length ECDSA signature in the form of X.509 (RFC 3279, section 2.2.3).
fn der(fixed: &[u8]) -> Vec<u8> {
    let integer = |half: &[u8]| [&[2, 33, 0], half].concat();
    let body = [integer(&fixed[..32]), integer(&fixed[32..])].concat();
    [&[0x30, body.len() as u8], &body[..]].concat()
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// How often each token is tried: every place that takes one, and every door.
fn attempts(token: &[u8]) -> Vec<Vec<u8>> {
    let request = |line: &str, header: &[u8]| {
        let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n");
        [head.as_bytes(), header, b"\r\n\r\n"].concat()
    };
    let mut attempts = vec![request(&format!("GET /stream?token={}", percent(token)), b"X: y")];
    let sendable = |byte: &u8| !matches!(byte, b'\r' | b'\n' | 0);
    if token.iter().all(sendable) {
        let bearer = [b"Authorization: Bearer ", token].concat();
        attempts.push(request("GET /stream", &bearer));
        attempts.push(request("GET /api/jobs/stream?onLimit=soft", &bearer));
        attempts.push(request("HEAD /stream", &bearer));
        attempts.push(request("POST /api/events", &bearer));
        attempts.push(request("GET /api/sse/connections", &bearer));
        attempts.push(request("DELETE /api/sse/connections?session=x", &bearer));
    }
    if token.iter().all(|byte| sendable(byte) && !b"; ".contains(byte)) {
        attempts.push(request("GET /stream", &[b"Cookie: fanlight_token=", token].concat()));
    }
    attempts
}

async fn status(node: &Node, request: &[u8]) -> Option<u16> {
    let head_only = request.starts_with(b"HEAD");
    exchange(node.addr(), request, head_only).await.ok().map(|answer| answer.status())
}

async fn open_streams(node: &Node) -> Value {
    node.get("/health").await.json()["stream"]["active_connections"].clone()
}

#[tokio::test]
async fn no_hostile_token_is_accepted_anywhere() {
    let keys = Keys::new();
    let (node, _jwks) = keys.configure(Node::builder().set("FANLIGHT_REQUIRE_TOKEN", "true"));
    let node = node.start().await;
    let families = [algorithms, confusions, headers, claims, signatures, shapes];
    let table: Vec<Named> = families.iter().flat_map(|family| family(&keys)).collect();
    let names: std::collections::BTreeSet<_> = table.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), table.len(), "every token has its own name");
    assert!(table.len() >= 60, "{}", table.len());
    println!("{} hostile tokens, each in every place and at every door", table.len());
    for (name, token) in &table {
        for request in attempts(token) {
            let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
            assert_eq!(status(&node, &request).await, Some(401), "{name}: {line}");
        }
    }
    for (name, token) in giants(&keys) {
        for request in attempts(&token) {
            // hyper answers 431 and closes; the rest of the request may turn that into a reset.
            let status = status(&node, &request).await;
            assert!(matches!(status, None | Some(400 | 401 | 414 | 431)), "{name}: {status:?}");
        }
    }
    assert_eq!(open_streams(&node).await, 0);
    for (name, token) in good(&keys) {
        let client = SseClient::open(node.addr(), &format!("/stream?token={token}")).await;
        assert_eq!(
            client.head.status, 200,
            "{name}: the table would prove nothing if good ones were refused too"
        );
    }
}

/// What a node with these keys takes: each differs from a hostile one by a little.
fn good(keys: &Keys) -> Vec<(&'static str, String)> {
    let said = |claims: Value| token(HS, all_but(claims), keys.hs256());
    let headed = |header: &str| token(header, all(), keys.hs256());
    vec![
        ("HS256", said(json!({}))),
        ("RS256", token(RS, all(), |m| keys.rs256(m))),
        ("ES256", token(ES, all(), |m| keys.es256(m))),
        ("EdDSA", token(ED, all(), |m| keys.eddsa(m))),
        ("ES256 without a kid", token(r#"{"alg":"ES256"}"#, all(), |m| keys.es256(m))),
        ("HS256 with a kid", headed(r#"{"alg":"HS256","kid":"2024/05+a="}"#)),
        ("an access token", headed(r#"{"alg":"HS256","typ":"application/at+jwt"}"#)),
        ("with unknown header members", headed(r#"{"alg":"HS256","x5t":"abc","foo":[1]}"#)),
        ("for us", said(json!({ "aud": "fanlight" }))),
        ("for us among others", said(json!({ "aud": ["mail", "fanlight"] }))),
        ("good since now", said(json!({ "nbf": now() }))),
        ("good until the end of days", said(json!({ "exp": 253_402_300_799_u64 }))),
        ("without permissions", token(HS, json!({ "exp": now() + 60 }).to_string(), keys.hs256())),
        (
            "with unknown claims",
            said(json!({ "iss": "x", "sub": "y", "iat": 1, "jti": "z", "roles": ["a"] })),
        ),
    ]
}

#[tokio::test]
async fn no_bit_of_a_token_can_be_changed() {
    let keys = Keys::new();
    let (node, _jwks) = keys.configure(Node::builder().set("FANLIGHT_REQUIRE_TOKEN", "true"));
    let node = node.start().await;
    for (name, token) in good(&keys).into_iter().take(4) {
        for _ in 0..100 {
            let mut bytes = token.clone().into_bytes();
            let at = rand::random_range(0..bytes.len());
            bytes[at] ^= 1 << rand::random_range(0..7);
            let request = attempts(&bytes).remove(0);
            assert_eq!(
                status(&node, &request).await,
                Some(401),
                "{name}: {}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }
    assert_eq!(open_streams(&node).await, 0);
}
