//! What the authority makes, judged by OpenSSL, curl, Python and rustls; and what is thrown at its parsers.

mod chains;
mod clients;
mod formats;
mod import;
mod mutations;
mod revocation;
mod server;
mod tools;
