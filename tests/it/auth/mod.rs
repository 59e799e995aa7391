//! Who is asking: addresses, keys, tokens, origins, and what each may do.

mod addresses;
mod admin_address;
mod canary;
pub(crate) mod forge;
mod hostile;
mod origins;
mod sessions;
mod soft;
mod tokens;
