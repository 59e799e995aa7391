//! Keys of every kind, made for the occasion.

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;

/// RSA of 1024 bits and P-384: keys that are not used.
const RSA_1024: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkyWXUQf1zwdZeAeyicvBFaidIjwE6wvaXKPw+eTfROnfqd43pb6Wom60C1SIfedzPCJNXnPV5CTJgrLfedqPGjv6hx82g8Mt/sFNy0sqNXuPjbCkNBgy53m5AgShAVHoCsiQttAIJhat2EkHwXigr6d8GsNjL3KF2oWk1J3udWQIDAQAB";
const P384: &str = "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEt/WVqf1+7T0K+vRXv5UU480/bEQ+DYqQ0vFzNFuzZbx/aItknSu8CtcDMgcPluFb2+/ms+qTZpJZk+SOBZ+chB7c4wLUlAcH6yn4eLW4F36p35yLjGJzvg1HmmixnrF3";

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// Somebody who signs tokens.
struct Issuer {
    algorithm: &'static str,
    spki: Vec<u8>,
    jwk: Value,
    sign: Sign,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn spki(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Vec<u8> {
    key.as_der().unwrap().as_ref().to_vec()
}

fn rsa() -> Issuer {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let key = pair.public_key();
    let (n, e) = (key.modulus(), key.exponent());
    let [n, e] = [n, e].map(|part| b64(part.big_endian_without_leading_zero()));
    let (spki, jwk) = (spki(key), json!({ "kty": "RSA", "n": n, "e": e }));
    let sign = move |message: &[u8]| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    };
    Issuer { algorithm: "RS256", spki, jwk, sign: Box::new(sign) }
}

fn ec() -> Issuer {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]) });
    let spki = spki(pair.public_key());
    let sign = move |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    Issuer { algorithm: "ES256", spki, jwk, sign: Box::new(sign) }
}

fn ed() -> Issuer {
    let pair = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key()) });
    let spki = spki(pair.public_key());
    let sign = move |message: &[u8]| pair.sign(message).as_ref().to_vec();
    Issuer { algorithm: "EdDSA", spki, jwk, sign: Box::new(sign) }
}

impl Issuer {
    fn pem(&self) -> String {
        pem(&STANDARD.encode(&self.spki))
    }

    fn public_key(&self) -> PublicKey {
        PublicKey::from_pem(&self.pem()).unwrap()
    }

    /// A member of a key set with more members.
    fn jwk(&self, more: Value) -> Value {
        let mut jwk = self.jwk.clone();
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    }

    fn token(&self, header: Value) -> String {
        let mut full = json!({ "alg": self.algorithm });
        full.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
        let message = format!("{}.{}", b64(full.to_string()), b64(json!({ "exp": NOW + 60 }).to_string()));
        format!("{message}.{}", b64((self.sign)(message.as_bytes())))
    }
}

fn pem(base64: &str) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n")
}

fn clock() -> Clock {
    let clock = Clock::held();
    clock.advance(Duration::from_secs(NOW));
    clock
}

fn verifier(public_key: Option<PublicKey>, jwks: Option<&JwksFile>) -> Verifier {
    Verifier::new(None, public_key, jwks, clock())
}

fn file(keys: &[Value]) -> (tempfile::NamedTempFile, Result<JwksFile, JwksError>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).unwrap();
    let opened = JwksFile::open(file.path());
    (file, opened)
}

#[test]
fn a_key_accepts_what_its_issuer_signed_and_nothing_else() {
    let issuers = [rsa(), ec(), ed(), rsa(), ec(), ed()];
    for (i, issuer) in issuers.iter().enumerate() {
        let alone = verifier(Some(issuer.public_key()), None);
        for (j, other) in issuers.iter().enumerate() {
            let verdict = alone.verify(&other.token(json!({}))).map(|grants| grants.expires_at);
            let expected = if i == j { Ok((NOW + 60) * 1000) } else { Err(TokenError::Untrusted) };
            assert_eq!(verdict, expected, "{} by the key of {}", other.algorithm, issuer.algorithm);
        }
    }
}

#[test]
fn only_public_keys_of_the_three_kinds_are_read() {
    for unused in [RSA_1024, P384] {
        assert_eq!(PublicKey::from_pem(&pem(unused)).map(drop), Err(BadKey::Unsupported), "{unused}");
    }
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(PublicKey::from_pem(private).map(drop), Err(BadKey::Private));
    assert_eq!(PublicKey::from_pem(&format!("{private}{}", ed().pem())).map(drop), Err(BadKey::Private));
    for none in ["", "MIGf", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert_eq!(PublicKey::from_pem(none).map(drop), Err(BadKey::NoPublicKey), "{none}");
    }
}

#[test]
fn a_kid_chooses_among_the_keys_of_the_file_and_brings_none() {
    let (one, two) = (ec(), ec());
    let (_path, jwks) =
        file(&[one.jwk(json!({ "kid": "one" })), two.jwk(json!({ "kid": "two", "use": "sig" }))]);
    let both = verifier(None, Some(&jwks.unwrap()));
    for good in [one.token(json!({ "kid": "one" })), two.token(json!({ "kid": "two" })), two.token(json!({}))]
    {
        assert!(both.verify(&good).is_ok());
    }
    for kid in ["two", "none", "../one"] {
        assert_eq!(both.verify(&one.token(json!({ "kid": kid }))), Err(TokenError::Untrusted), "{kid}");
    }
    for kid in ["", "one' OR '1'='1", "a\0", &"x".repeat(129)] {
        assert_eq!(both.verify(&one.token(json!({ "kid": kid }))), Err(TokenError::Malformed), "{kid}");
    }
}

#[test]
fn keys_for_other_purposes_are_none() {
    let issuer = rsa();
    for other in [
        json!({ "use": "enc" }),
        json!({ "alg": "RS512" }),
        json!({ "alg": "PS256" }),
        json!({ "key_ops": ["encrypt"] }),
    ] {
        let (_path, opened) = file(&[issuer.jwk(other.clone())]);
        assert!(matches!(opened, Err(JwksError::Useless(1))), "{other}");
        let (_path, opened) = file(&[issuer.jwk(other), ed().jwk(json!({}))]);
        let verifier = verifier(None, Some(&opened.unwrap()));
        assert_eq!(verifier.verify(&issuer.token(json!({}))), Err(TokenError::Untrusted));
    }
    let secret = json!({ "kty": "oct", "k": b64("x".repeat(32)), "alg": "HS256" });
    let point = json!({ "kty": "EC", "crv": "P-256", "x": b64([1; 32]), "y": b64([1; 32]) });
    let small = json!({ "kty": "RSA", "n": b64([255; 128]), "e": "AQAB" });
    for bad in [secret, point, small, json!({ "kty": "RSA" }), json!({})] {
        let (_path, opened) = file(std::slice::from_ref(&bad));
        assert!(matches!(opened, Err(JwksError::Useless(1) | JwksError::NoSet(_))), "{bad}");
    }
    assert!(matches!(file(&vec![issuer.jwk(json!({})); 65]).1, Err(JwksError::TooMany)));
}

#[test]
fn a_changed_file_replaces_the_keys_and_a_broken_one_does_not() {
    let (old, new) = (ed(), ed());
    let (_path, jwks) = file(&[old.jwk(json!({}))]);
    let mut jwks = jwks.unwrap();
    let verifier = verifier(None, Some(&jwks));
    for broken in ["", "{", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#] {
        jwks.take(broken.into(), &verifier);
        assert!(verifier.verify(&old.token(json!({}))).is_ok(), "{broken}");
    }
    jwks.take(json!({ "keys": [new.jwk] }).to_string().into_bytes(), &verifier);
    assert!(verifier.verify(&new.token(json!({}))).is_ok());
    assert_eq!(verifier.verify(&old.token(json!({}))), Err(TokenError::Untrusted));
}

#[test]
fn what_is_signed_here_is_accepted_here_until_it_expires() {
    let secret = Secret::new("0123456789abcdef0123456789abcdef");
    let clock = clock();
    let verifier = Verifier::new(Some(&secret), None, None, clock.clone());
    let patterns = |list: &[&str]| list.iter().map(|p| ChannelPattern::parse(p).unwrap()).collect::<Vec<_>>();
    let grants = Grants {
        read: patterns(&["a", "b:*", "*"]),
        publish: patterns(&["c"]),
        admin: true,
        expires_at: (NOW + 60) * 1000,
    };
    let token = sign(&secret, Some("somebody".to_owned()), grants.clone()).unwrap();
    clock.advance(Duration::from_millis(59_999));
    assert_eq!(verifier.verify(&token), Ok(grants));
    clock.advance(Duration::from_millis(1));
    assert_eq!(verifier.verify(&token), Err(TokenError::Expired));
}

#[test]
fn an_issuers_clock_may_be_a_little_ahead() {
    let claims =
        |nbf: u64| -> Claims { serde_json::from_value(json!({ "exp": NOW + 60, "nbf": nbf })).unwrap() };
    assert!(claims(NOW + 5).grants(NOW * 1000).is_ok());
    assert_eq!(claims(NOW + 6).grants(NOW * 1000), Err(TokenError::NotYet));
    assert_eq!(claims(u64::MAX).grants(NOW * 1000), Err(TokenError::NotYet));
}

#[test]
fn a_lost_token_is_not_found_in_what_is_printed() {
    let secret = Secret::new("canary");
    let (_path, jwks) = file(&[ed().jwk(json!({ "kid": "k" }))]);
    let config = Config { secret: Some(secret), public_key: None, jwks: Some(jwks.unwrap()) };
    let printed = format!("{config:?}");
    assert!(!printed.contains("canary") && !printed.contains("OKP"), "{printed}");
    let (started, _) = Verifier::start(Config { jwks: None, ..config }, clock());
    let printed = format!("{:?}", started.unwrap());
    assert!(!printed.contains("canary") && !printed.contains("99, 97, 110"), "{printed}");
}
