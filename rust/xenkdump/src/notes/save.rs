//! The records of a saved domain, which are listed as notes.

/// The image header and the domain header of libxc's stream.
pub(crate) const HEADER: &[u8] = b"libxc header";
/// The configuration in xl's header.
pub(crate) const XL_CONFIG: &[u8] = b"xl config";
/// The configuration in xend's header.
pub(crate) const XEND_CONFIG: &[u8] = b"xend config";
/// The configuration in libvirt's header.
pub(crate) const LIBVIRT_CONFIG: &[u8] = b"libvirt config";
/// Records of libxc's stream.
pub(crate) const LIBXC: &[u8] = b"libxc";
/// Records of libxl's stream.
pub(crate) const LIBXL: &[u8] = b"libxl";

/// The headers of libxc's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveHeader {
    /// Version of the stream.
    pub version: u32,
    /// 1 is PV, 2 is HVM or PVH.
    pub domain_type: u32,
    /// Size of a page.
    pub page_size: u64,
    /// Major and minor version of the Xen that saved the domain; 0 and the version of the converter if the
    /// stream was converted.
    pub xen_version: (u32, u32),
}

impl SaveHeader {
    pub(super) fn parse(desc: &[u8]) -> Option<Self> {
        let four = |at: usize| desc.get(at..)?.first_chunk().copied();
        let little = |at| four(at).map(u32::from_le_bytes);
        Some(Self {
            version: u32::from_be_bytes(four(12)?),
            domain_type: little(24)?,
            page_size: 1u64.checked_shl(little(28)? & 0xffff)?,
            xen_version: (little(32)?, little(36)?),
        })
    }
}

/// The name of a record of libxc's stream.
pub(super) fn libxc_record(kind: u32) -> Option<&'static str> {
    const NAMES: [&str; 19] = [
        "END",
        "PAGE_DATA",
        "X86_PV_INFO",
        "X86_PV_P2M_FRAMES",
        "X86_PV_VCPU_BASIC",
        "X86_PV_VCPU_EXTENDED",
        "X86_PV_VCPU_XSAVE",
        "SHARED_INFO",
        "X86_TSC_INFO",
        "HVM_CONTEXT",
        "HVM_PARAMS",
        "TOOLSTACK",
        "X86_PV_VCPU_MSRS",
        "VERIFY",
        "CHECKPOINT",
        "CHECKPOINT_DIRTY_PFN_LIST",
        "STATIC_DATA_END",
        "X86_CPUID_POLICY",
        "X86_MSR_POLICY",
    ];
    NAMES.get(usize::try_from(kind).ok()?).copied()
}

/// The name of a record of libxl's stream.
pub(super) fn libxl_record(kind: u32) -> Option<&'static str> {
    const NAMES: [&str; 6] = [
        "END",
        "LIBXC_CONTEXT",
        "EMULATOR_XENSTORE_DATA",
        "EMULATOR_CONTEXT",
        "CHECKPOINT_END",
        "CHECKPOINT_STATE",
    ];
    NAMES.get(usize::try_from(kind).ok()?).copied()
}
