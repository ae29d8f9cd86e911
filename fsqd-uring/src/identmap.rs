//! The identity map.
/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// TSM node name, as the client sends it.
    pub node: String,
    /// TSM server that the node belongs to.
    pub servername: String,
    /// HSM archive id.
    pub archive_id: i32,
    /// Owner of its files.
    pub uid: u32,
    /// Group of its files.
    pub gid: u32,
    /// The node writes only below this absolute directory; `None`: below the whole mount.
    pub directory: Option<String>,
}
