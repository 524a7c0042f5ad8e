//! In the place of `distributed.rs`, in a program that was built without the feature `distributed`: no workers.

use std::fs::File;
use std::future::Ready;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::object_store::path::Path as ObjectPath;
use datafusion::prelude::SessionConfig;
use program::{Outcome, UsageError};
use storage::Location;

use crate::remote::{self, Files, OpenFile};

/// There are none.
#[derive(Debug)]
pub(crate) enum Workers {}

impl Workers {
    pub(crate) fn new(addresses: &[String]) -> Result<Option<Self>> {
        if addresses.is_empty() { Ok(None) } else { Err(without("--workers")) }
    }

    pub(crate) fn take_over(self, _: SessionState) -> Ready<Result<SessionState, DataFusionError>> {
        match self {}
    }
}

pub(crate) fn serve(_: SocketAddr, _: u32) -> Result<Outcome> {
    Err(without("--worker"))
}

fn without(option: &str) -> anyhow::Error {
    let how = "cargo build --release -p simzss-tools-sql --features distributed";
    UsageError(format!("this tools-sql was built without {option}; build one with it: `{how}`")).into()
}

pub(crate) fn is_used(_: &SessionConfig) -> bool {
    false
}

pub(crate) fn name(path: &Location, _: &OpenFile) -> ObjectPath {
    remote::name(path)
}

pub(crate) fn files() -> Arc<Files> {
    Arc::clone(remote::files())
}

pub(crate) fn spool() -> Result<File> {
    Err(without("--workers"))
}
