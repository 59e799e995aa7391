//! Who is asking: addresses, keys, tokens, origins, and what each may do.

mod admin_address;
mod sessions;
