//! The client's side of registries: OCI distribution 1.1 and Docker's registry protocol 2. Over the same connections
//! files of other web servers are downloaded ([`Client::download`]).
//!
//! What comes from a registry is hostile: sizes, counts and times are limited ([`Limits`]), bytes are checked
//! against the digest they were asked for by, and a credential goes to the origin it belongs to and nowhere else.
//! Memory is flat: a blob passes in the pieces in which it came.

mod address;
mod answer;
mod arrival;
mod blob;
mod call;
mod challenge;
mod client;
mod config;
mod credentials;
mod document;
mod endpoint;
mod error;
mod fetch;
mod flow;
mod headers;
mod platform;
mod proxy;
mod pull;
mod push;
mod realm;
mod repository;
mod retry;
mod token;
mod transport;
mod upload;
mod url;
mod web;

pub use blob::BlobStream;
pub use challenge::{Challenge, parse_challenges};
pub use client::{Client, Login, SearchHit};
pub use config::{Config, InsecureRule, Limits, Mirror};
pub use credentials::Credentials;
pub use document::{Document, check_image, check_layer};
pub use error::{Error, Refusal, RegistryError, Result};
pub use fetch::Fetcher;
pub use platform::choose;
pub use proxy::{ProxyConfig, basic_authorization};
pub use pull::{PullProgress, PullStep, Puller, Resolved};
pub use push::{Origins, PushProgress, PushStep, Pushed, Pusher, Put};
pub use repository::{Fetched, ManifestRef, Repository};
pub use web::{Ask, Downloaded, Validators};
