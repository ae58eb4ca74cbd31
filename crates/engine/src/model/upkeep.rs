use longshore_oci::Digest;

/// What became of the compressed layers.
#[derive(Clone, Debug, Default)]
pub struct CompressedPruned {
    /// With the bytes of the disk (blocks) that each gave back.
    pub dropped: Vec<(Digest, u64)>,
    /// With the reason.
    pub kept: Vec<(Digest, String)>,
    /// Bytes of the disk (blocks) that this freed.
    pub reclaimed: u64,
}
