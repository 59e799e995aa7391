//! Environment variables of other names than ours, which platforms set and other programs had.

/// Another environment name for a setting, kept for those who come from elsewhere.
#[derive(Debug)]
pub(super) struct Fallback {
    /// The variable.
    pub(super) name: &'static str,
    /// From its value to the text of our setting.
    pub(super) translate: fn(&str) -> String,
    /// What is allowed in it; none when that is what is allowed in ours.
    pub(super) allowed: Option<&'static str>,
}

impl Fallback {
    /// One that takes the same as ours.
    pub(super) const fn same(name: &'static str) -> Self {
        Self { name, translate: str::to_owned, allowed: None }
    }

    /// A bare port. It says nothing about who may reach it, so the address stays loopback.
    pub(super) const fn port(name: &'static str) -> Self {
        Self { name, translate: |port| format!("127.0.0.1:{port}"), allowed: Some("a port, like 8080") }
    }

    /// A duration in milliseconds, without the unit.
    pub(super) const fn millis(name: &'static str) -> Self {
        let allowed = Some("a number of milliseconds, of a duration that the setting allows (`--help`)");
        Self { name, translate: |millis| format!("{millis}ms"), allowed }
    }
}
