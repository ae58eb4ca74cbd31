//! x
use crate::client::Client;
use crate::error::Result;
pub(crate) async fn explore(_c: &Client, _image: &str) -> Result<()> {
    Ok(())
}
