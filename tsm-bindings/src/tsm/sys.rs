//! The raw C ABI of `libApiTSM64.so` on Linux x86-64: constants, structures, function types.
//!
//! Owns nothing but facts; [`super::result`] is what calls them. Names of structures, fields and
//! functions are those of the vendor's manual, so that it can be read beside this file. The
//! structures are those of level 8.1, which only append to the older ones, except for the archive
//! query's response: [`qryRespArchiveData6`] is its older form. Invariant: every structure has the
//! offsets noted at its fields, or this file does not compile.
//!
//! Character arrays are declared as `u8` (the C `char` has the same size), enumerations and
//! booleans as C `int`, for any value may come from the other side.

#![allow(non_camel_case_types, non_snake_case, missing_docs)]

use std::ffi::{c_char, c_int, c_void};

use crate::abi::{Zeroed, c_structs, symbols};

/// A C enumeration of four bytes: 0 is false, anything else true.
pub type dsmBool_t = c_int;
/// A session.
pub type Handle = u32;

/// Longest filespace name, bytes without NUL.
pub const FSNAME_BYTES_MAX: usize = 1024;
/// Longest high-level name, bytes without NUL.
pub const HL_BYTES_MAX: usize = 1024;
/// Longest low-level name, bytes without NUL.
pub const LL_BYTES_MAX: usize = 256;
/// Longest description, bytes without NUL.
pub const DESCR_BYTES_MAX: usize = 255;
/// Longest object information without the extension, bytes.
pub const OBJINFO_BYTES_MAX: usize = 255;
/// Longest object information with the extension, bytes.
pub const OBJINFO_EXT_BYTES_MAX: usize = 1500;
/// Longest node, owner, server name or password, bytes without NUL.
pub const ID_BYTES_MAX: usize = 64;
/// Longest type of a filespace, bytes without NUL.
pub const FSTYPE_BYTES_MAX: usize = 32;
/// Longest filespace information that the server keeps, bytes.
pub const FSINFO_BYTES_MAX: usize = 480;
/// Buffer for a message of `dsmRCMsg`, bytes with NUL.
pub const MESSAGE_BYTES: usize = 1025;
/// Most objects in one retrieval.
pub const GET_OBJECTS_MAX: usize = 4080;
/// Most objects in one retrieval of parts.
pub const GET_PARTIAL_OBJECTS_MAX: usize = 1300;

/// `dsmSendType`: an archive object.
pub const ST_ARCHIVE: c_int = 1;
/// `dsmSendType`: an archive object, waiting for a tape mount if need be.
pub const ST_ARCHIVE_MOUNT_WAIT: c_int = 3;
/// `dsmQueryType`: archive objects.
pub const QT_ARCHIVE: c_int = 0;
/// `dsmQueryType`: filespaces.
pub const QT_FILESPACE: c_int = 3;
/// `dsmQueryType`: management classes.
pub const QT_MC: c_int = 4;
/// `dsmGetType`: archive objects.
pub const GT_ARCHIVE: c_int = 1;
/// `dsmDelType`: an archive object.
pub const DT_ARCHIVE: c_int = 0;
/// Vote of `dsmEndTxn`: make it permanent.
pub const VOTE_COMMIT: u8 = 1;
/// Vote of `dsmEndTxn`: forget it.
pub const VOTE_ABORT: u8 = 2;
/// Sessions in one thread only.
pub const SINGLE_THREAD: dsmBool_t = 0;
/// Sessions in several threads.
pub const MULTI_THREAD: dsmBool_t = 1;
/// Object type: file.
pub const OBJ_FILE: u8 = 1;
/// Object type: directory.
pub const OBJ_DIRECTORY: u8 = 2;
/// Object type in queries: any.
pub const OBJ_ANY: u8 = 0xff;
/// `year` of a [`dsmDate`] that stands for no upper bound.
pub const DATE_PLUS_INFINITE: u16 = 0xffff;
/// What `dsmUpdateObj` changes: the owner.
pub const ARCHIVE_UPDATE_OWNER: u32 = 1;
/// What `dsmUpdateObj` changes: object information and size.
pub const ARCHIVE_UPDATE_OBJINFO: u32 = 2;
/// What `dsmUpdateObj` changes: the description.
pub const ARCHIVE_UPDATE_DESCR: u32 = 4;
/// Repository of `dsmDeleteFS` and `dsmRenameObj`: archive.
pub const REPOSITORY_ARCHIVE: u8 = 0x0a;
/// Repository of `dsmDeleteFS`: archive and backup.
pub const REPOSITORY_ALL: u8 = 0x01;
/// `archDel` of [`ApiSessInfo`]: the node may delete archive objects.
pub const MAY_DELETE: u8 = 1;
/// `archDel` of [`ApiSessInfo`]: the node may not delete archive objects.
pub const MAY_NOT_DELETE: u8 = 2;

/// Filespace attributes; the UNIX member is the one used here.
#[repr(C)]
#[derive(Clone, Copy)]
pub union dsmFSAttr {
    pub unixFSAttr: dsmUnixFSAttrib,
    pub dosFSAttr: dsmDosFSAttrib,
}

const _: () = assert!(size_of::<dsmFSAttr>() == 504 && align_of::<dsmFSAttr>() == 2);

// SAFETY: a union of structures of integers.
unsafe impl Zeroed for dsmFSAttr {}

/// What `dsmDeleteObj` deletes; passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub union dsmDelInfo {
    pub backInfo: delBack,
    pub archInfo: delArch,
    pub backIDInfo: delBackID,
}

const _: () = assert!(size_of::<dsmDelInfo>() == 24 && align_of::<dsmDelInfo>() == 8);

// SAFETY: a union of structures of integers and raw pointers.
unsafe impl Zeroed for dsmDelInfo {}

impl dsStruct64_t {
    /// From a machine number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self { hi: (value >> 32) as u32, lo: value as u32 }
    }

    /// The machine number.
    #[must_use]
    pub const fn value(self) -> u64 {
        (self.hi as u64) << 32 | self.lo as u64
    }
}

c_structs! {
    /// A 64-bit number in two halves, the high one first; not the machine's own `u64`.
    struct dsStruct64_t = 8, 4 {
        hi: u32 = 0,
        lo: u32 = 4,
    }

    /// Where on the media an object lies; objects are retrieved in ascending order of it.
    struct dsUint160_t = 20, 4 {
        top: u32 = 0,
        hi_hi: u32 = 4,
        hi_lo: u32 = 8,
        lo_hi: u32 = 12,
        lo_lo: u32 = 16,
    }

    /// A local time of the server, in seconds; `year` 0 and 0xFFFF stand for no bound.
    struct dsmDate = 8, 2 {
        year: u16 = 0,
        month: u8 = 2,
        day: u8 = 3,
        hour: u8 = 4,
        minute: u8 = 5,
        second: u8 = 6,
    }

    /// Version of the library, old form.
    struct dsmApiVersion = 6, 2 {
        version: u16 = 0,
        release: u16 = 2,
        level: u16 = 4,
    }

    /// Version of the library.
    struct dsmApiVersionEx = 16, 4 {
        stVersion: u16 = 0,
        version: u16 = 2,
        release: u16 = 4,
        level: u16 = 6,
        subLevel: u16 = 8,
        unicode: dsmBool_t = 12,
    }

    /// Version of the calling program; since `dsmInitExIn_t` version 5.
    struct dsmAppVersion = 10, 2 {
        stVersion: u16 = 0,
        applicationVersion: u16 = 2,
        applicationRelease: u16 = 4,
        applicationLevel: u16 = 6,
        applicationSubLevel: u16 = 8,
    }

    /// Name of an object in its three parts, each begins with the directory delimiter.
    struct dsmObjName = 2308, 1 {
        fs: [u8; 1025] = 0,
        hl: [u8; 1025] = 1025,
        ll: [u8; 257] = 2050,
        objType: u8 = 2307,
    }

    /// A buffer: `bufferLen` in, `numBytes` out.
    struct DataBlk = 32, 8 {
        stVersion: u16 = 0,
        bufferLen: u32 = 4,
        numBytes: u32 = 8,
        bufferPtr: *mut c_char = 16,
        numBytesCompressed: u32 = 24,
        reserved: u16 = 28,
    }

    /// Directories for `dsmSetUp`; an empty string means: take it from the environment.
    struct envSetUp = 4120, 8 {
        stVersion: u16 = 0,
        dsmiDir: [u8; 1280] = 2,
        dsmiConfig: [u8; 1280] = 1282,
        dsmiLog: [u8; 1280] = 2562,
        argv: *mut *mut c_char = 3848,
        logName: [u8; 256] = 3856,
        reserved1: dsmBool_t = 4112,
        reserved2: dsmBool_t = 4116,
    }

    /// What `dsmInitEx` is told.
    struct dsmInitExIn_t = 128, 8 {
        stVersion: u16 = 0,
        apiVersionExP: *mut dsmApiVersionEx = 8,
        clientNodeNameP: *mut c_char = 16,
        clientOwnerNameP: *mut c_char = 24,
        clientPasswordP: *mut c_char = 32,
        userNameP: *mut c_char = 40,
        userPasswordP: *mut c_char = 48,
        applicationTypeP: *mut c_char = 56,
        configfile: *mut c_char = 64,
        options: *mut c_char = 72,
        dirDelimiter: u8 = 80,
        useUnicode: dsmBool_t = 84,
        bCrossPlatform: dsmBool_t = 88,
        bService: dsmBool_t = 92,
        bEncryptKeyEnabled: dsmBool_t = 96,
        encryptionPasswordP: *mut c_char = 104,
        useTsmBuffers: dsmBool_t = 112,
        numTsmBuffers: u8 = 116,
        appVersionP: *mut dsmAppVersion = 120,
    }

    /// What `dsmInitEx` answers.
    struct dsmInitExOut_t = 216, 4 {
        stVersion: u16 = 0,
        userNameAuthorities: i16 = 2,
        infoRC: i16 = 4,
        adsmServerName: [u8; 65] = 6,
        serverVer: u16 = 72,
        serverRel: u16 = 74,
        serverLev: u16 = 76,
        serverSubLev: u16 = 78,
        bIsFailOverMode: dsmBool_t = 80,
        replServerName: [u8; 65] = 84,
        homeServerName: [u8; 65] = 149,
    }

    /// What the server says about the session.
    struct ApiSessInfo = 2028, 4 {
        stVersion: u16 = 0,
        serverHost: [u8; 65] = 2,
        serverPort: u16 = 68,
        serverDate: dsmDate = 70,
        serverType: [u8; 33] = 78,
        serverVer: u16 = 112,
        serverRel: u16 = 114,
        serverLev: u16 = 116,
        serverSubLev: u16 = 118,
        nodeType: [u8; 17] = 120,
        fsdelim: u8 = 137,
        hldelim: u8 = 138,
        compression: u8 = 139,
        archDel: u8 = 140,
        backDel: u8 = 141,
        maxBytesPerTxn: u32 = 144,
        maxObjPerTxn: u16 = 148,
        id: [u8; 65] = 150,
        owner: [u8; 65] = 215,
        confFile: [u8; 1280] = 280,
        opNoTrace: u8 = 1560,
        domainName: [u8; 31] = 1561,
        policySetName: [u8; 31] = 1592,
        polActDate: dsmDate = 1624,
        dfltMCName: [u8; 31] = 1632,
        gpBackRetn: u16 = 1664,
        gpArchRetn: u16 = 1666,
        adsmServerName: [u8; 65] = 1668,
        archiveRetentionProtection: dsmBool_t = 1736,
        maxBytesPerTxn_64: dsStruct64_t = 1740,
        lanFreeEnabled: dsmBool_t = 1748,
        dedupType: c_int = 1752,
        accessNode: [u8; 65] = 1756,
        failOverCfgType: c_int = 1824,
        replServerName: [u8; 65] = 1828,
        homeServerName: [u8; 65] = 1893,
        replServerHost: [u8; 65] = 1958,
        replServerPort: i32 = 2024,
    }

    /// The options in effect.
    struct optStruct = 3732, 4 {
        dsmiDir: [u8; 1280] = 0,
        dsmiConfig: [u8; 1280] = 1280,
        serverName: [u8; 65] = 2560,
        commMethod: i16 = 2626,
        serverAddress: [u8; 1024] = 2628,
        nodeName: [u8; 65] = 3652,
        compression: dsmBool_t = 3720,
        compressalways: dsmBool_t = 3724,
        passwordAccess: dsmBool_t = 3728,
    }

    /// Attributes of a filespace on UNIX.
    struct dsmUnixFSAttrib = 502, 2 {
        fsInfoLength: u16 = 0,
        fsInfo: [u8; 500] = 2,
    }

    /// Attributes of a filespace on DOS; declared because it sizes the union.
    struct dsmDosFSAttrib = 504, 2 {
        driveLetter: u8 = 0,
        fsInfoLength: u16 = 2,
        fsInfo: [u8; 500] = 4,
    }

    /// What `dsmRegisterFS` is told.
    struct regFSData = 544, 8 {
        stVersion: u16 = 0,
        fsName: *mut c_char = 8,
        fsType: *mut c_char = 16,
        occupancy: dsStruct64_t = 24,
        capacity: dsStruct64_t = 32,
        fsAttr: dsmFSAttr = 40,
    }

    /// What `dsmUpdateFS` is told.
    struct dsmFSUpd = 536, 8 {
        stVersion: u16 = 0,
        fsType: *mut c_char = 8,
        occupancy: dsStruct64_t = 16,
        capacity: dsStruct64_t = 24,
        fsAttr: dsmFSAttr = 32,
    }

    /// Which filespaces to list.
    struct qryFSData = 16, 8 {
        stVersion: u16 = 0,
        fsName: *mut c_char = 8,
    }

    /// One filespace of a list.
    struct qryRespFSData = 1672, 4 {
        stVersion: u16 = 0,
        fsName: [u8; 1025] = 2,
        fsType: [u8; 33] = 1027,
        occupancy: dsStruct64_t = 1060,
        capacity: dsStruct64_t = 1068,
        fsAttr: dsmFSAttr = 1076,
        backStartDate: dsmDate = 1580,
        backCompleteDate: dsmDate = 1588,
        reserved1: dsmDate = 1596,
        lastReplStartDate: dsmDate = 1604,
        lastReplCmpltDate: dsmDate = 1612,
        lastBackOpDateFromServer: dsmDate = 1620,
        lastArchOpDateFromServer: dsmDate = 1628,
        lastSpMgOpDateFromServer: dsmDate = 1636,
        lastBackOpDateFromLocal: dsmDate = 1644,
        lastArchOpDateFromLocal: dsmDate = 1652,
        lastSpMgOpDateFromLocal: dsmDate = 1660,
        failOverWriteDelay: i32 = 1668,
    }

    /// The management class that an object is bound to.
    struct mcBindKey = 108, 4 {
        stVersion: u16 = 0,
        mcName: [u8; 31] = 2,
        backup_cg_exists: dsmBool_t = 36,
        archive_cg_exists: dsmBool_t = 40,
        backup_copy_dest: [u8; 31] = 44,
        archive_copy_dest: [u8; 31] = 75,
    }

    /// Attributes of an object that is sent.
    struct ObjAttr = 112, 8 {
        stVersion: u16 = 0,
        owner: [u8; 65] = 2,
        sizeEstimate: dsStruct64_t = 68,
        objCompressed: dsmBool_t = 76,
        objInfoLength: u16 = 80,
        objInfo: *mut c_char = 88,
        mcNameP: *mut c_char = 96,
        disableDeduplication: dsmBool_t = 104,
        useExtObjInfo: dsmBool_t = 108,
    }

    /// What `dsmSendObj` is told beyond name and attributes, for archive objects.
    struct sndArchiveData = 16, 8 {
        stVersion: u16 = 0,
        descr: *mut c_char = 8,
    }

    /// What `dsmEndSendObjEx` is told.
    struct dsmEndSendObjExIn_t = 8, 4 {
        stVersion: u16 = 0,
        dsmHandle: u32 = 4,
    }

    /// What `dsmEndSendObjEx` answers.
    struct dsmEndSendObjExOut_t = 48, 4 {
        stVersion: u16 = 0,
        totalBytesSent: dsStruct64_t = 4,
        objCompressed: dsmBool_t = 12,
        totalCompressSize: dsStruct64_t = 16,
        totalLFBytesSent: dsStruct64_t = 24,
        encryptionType: u8 = 32,
        objDeduplicated: dsmBool_t = 36,
        totalDedupSize: dsStruct64_t = 40,
    }

    /// What `dsmEndTxnEx` is told.
    struct dsmEndTxnExIn_t = 12, 4 {
        stVersion: u16 = 0,
        dsmHandle: u32 = 4,
        vote: u8 = 8,
    }

    /// What `dsmEndTxnEx` answers.
    struct dsmEndTxnExOut_t = 16, 4 {
        stVersion: u16 = 0,
        reason: u16 = 2,
        groupLeaderObjId: dsStruct64_t = 4,
        reserved1: u8 = 12,
        reserved2: u16 = 14,
    }

    /// Which archive objects to list.
    struct qryArchiveData = 64, 8 {
        stVersion: u16 = 0,
        objName: *mut dsmObjName = 8,
        owner: *mut c_char = 16,
        insDateLowerBound: dsmDate = 24,
        insDateUpperBound: dsmDate = 32,
        expDateLowerBound: dsmDate = 40,
        expDateUpperBound: dsmDate = 48,
        descr: *mut c_char = 56,
    }

    /// One archive object of a list, response version 7 (library 8.1 and later).
    struct qryRespArchiveData = 4532, 4 {
        stVersion: u16 = 0,
        objName: dsmObjName = 2,
        copyGroup: u32 = 2312,
        mcName: [u8; 31] = 2316,
        owner: [u8; 65] = 2347,
        objId: dsStruct64_t = 2412,
        reserved: dsStruct64_t = 2420,
        mediaClass: u8 = 2428,
        insDate: dsmDate = 2430,
        expDate: dsmDate = 2438,
        descr: [u8; 256] = 2446,
        objInfolen: u16 = 2702,
        reservedObjInfo: [u8; 255] = 2704,
        restoreOrderExt: dsUint160_t = 2960,
        sizeEstimate: dsStruct64_t = 2980,
        compressType: u8 = 2988,
        retentionInitiated: u8 = 2989,
        objHeld: u8 = 2990,
        encryptionType: u8 = 2991,
        clientDeduplicated: dsmBool_t = 2992,
        objInfo: [u8; 1500] = 2996,
        compressAlg: [u8; 33] = 4496,
    }

    /// One archive object of a list, response version 6 (libraries before 8.1).
    struct qryRespArchiveData6 = 2996, 4 {
        stVersion: u16 = 0,
        objName: dsmObjName = 2,
        copyGroup: u32 = 2312,
        mcName: [u8; 31] = 2316,
        owner: [u8; 65] = 2347,
        objId: dsStruct64_t = 2412,
        reserved: dsStruct64_t = 2420,
        mediaClass: u8 = 2428,
        insDate: dsmDate = 2430,
        expDate: dsmDate = 2438,
        descr: [u8; 256] = 2446,
        objInfolen: u16 = 2702,
        objInfo: [u8; 255] = 2704,
        restoreOrderExt: dsUint160_t = 2960,
        sizeEstimate: dsStruct64_t = 2980,
        compressType: u8 = 2988,
        retentionInitiated: u8 = 2989,
        objHeld: u8 = 2990,
        encryptionType: u8 = 2991,
        clientDeduplicated: dsmBool_t = 2992,
    }

    /// Archive copy group of a management class.
    struct archDetailCG = 88, 4 {
        cgName: [u8; 31] = 0,
        frequency: u16 = 32,
        retainVers: u16 = 34,
        copySer: u8 = 36,
        copyMode: u8 = 37,
        destName: [u8; 31] = 38,
        bLanFreeDest: dsmBool_t = 72,
        reserved: dsmBool_t = 76,
        retainInit: u8 = 80,
        retainMin: u16 = 82,
        bDeduplicate: dsmBool_t = 84,
    }

    /// Backup copy group of a management class.
    struct backupDetailCG = 88, 4 {
        cgName: [u8; 31] = 0,
        frequency: u16 = 32,
        verDataExst: u16 = 34,
        verDataDltd: u16 = 36,
        retXtraVers: u16 = 38,
        retOnlyVers: u16 = 40,
        copySer: u8 = 42,
        copyMode: u8 = 43,
        destName: [u8; 31] = 44,
        bLanFreeDest: dsmBool_t = 76,
        reserved: dsmBool_t = 80,
        bDeduplicate: dsmBool_t = 84,
    }

    /// Which management classes to list.
    struct qryMCData = 24, 8 {
        stVersion: u16 = 0,
        mcName: *mut c_char = 8,
        mcDetail: dsmBool_t = 16,
    }

    /// One management class of a list.
    struct qryRespMCData = 290, 2 {
        stVersion: u16 = 0,
        mcName: [u8; 31] = 2,
        mcDesc: [u8; 256] = 33,
    }

    /// One management class of a list with its copy groups.
    struct qryRespMCDetailData = 468, 4 {
        stVersion: u16 = 0,
        mcName: [u8; 31] = 2,
        mcDesc: [u8; 256] = 33,
        archDet: archDetailCG = 292,
        backupDet: backupDetailCG = 380,
    }

    /// A part of an object to retrieve.
    struct PartialObjData = 20, 4 {
        stVersion: u16 = 0,
        partialObjOffset: dsStruct64_t = 4,
        partialObjLength: dsStruct64_t = 12,
    }

    /// The objects that a retrieval is about.
    struct dsmGetList = 24, 8 {
        stVersion: u16 = 0,
        numObjId: u32 = 4,
        objId: *mut dsStruct64_t = 8,
        partialObjData: *mut PartialObjData = 16,
    }

    /// An archive object to delete.
    struct delArch = 12, 4 {
        stVersion: u16 = 0,
        objId: dsStruct64_t = 4,
    }

    /// A backup object to deactivate; declared because it sizes the union.
    struct delBack = 24, 8 {
        stVersion: u16 = 0,
        objNameP: *mut dsmObjName = 8,
        copyGroup: u32 = 16,
    }

    /// A backup object to delete; declared because it is in the union.
    struct delBackID = 12, 4 {
        stVersion: u16 = 0,
        objId: dsStruct64_t = 4,
    }

    /// What `dsmEndGetDataEx` is told.
    struct dsmEndGetDataExIn_t = 8, 4 {
        stVersion: u16 = 0,
        dsmHandle: u32 = 4,
    }

    /// What `dsmEndGetDataEx` answers.
    struct dsmEndGetDataExOut_t = 12, 4 {
        stVersion: u16 = 0,
        reason: u16 = 2,
        totalLFBytesRecv: dsStruct64_t = 4,
    }

    /// What `dsmUpdateObjEx` is told.
    struct dsmUpdateObjExIn_t = 56, 8 {
        stVersion: u16 = 0,
        dsmHandle: u32 = 4,
        sendType: c_int = 8,
        descrP: *mut c_char = 16,
        objNameP: *mut dsmObjName = 24,
        objAttrPtr: *mut ObjAttr = 32,
        objUpdAct: u32 = 40,
        archObjId: dsStruct64_t = 44,
    }

    /// What `dsmUpdateObjEx` answers.
    struct dsmUpdateObjExOut_t = 2, 2 {
        stVersion: u16 = 0,
    }

    /// What `dsmRenameObj` is told.
    struct dsmRenameIn_t = 1320, 8 {
        stVersion: u16 = 0,
        dsmHandle: u32 = 4,
        repository: u8 = 8,
        objNameP: *mut dsmObjName = 16,
        newHl: [u8; 1025] = 24,
        newLl: [u8; 257] = 1049,
        merge: dsmBool_t = 1308,
        objId: dsStruct64_t = 1312,
    }

    /// What `dsmRenameObj` answers.
    struct dsmRenameOut_t = 2, 2 {
        stVersion: u16 = 0,
    }
}

symbols! {
    /// The functions that this crate calls.
    struct Symbols {
        dsmQueryApiVersionEx: unsafe extern "C" fn(*mut dsmApiVersionEx),
        dsmSetUp: unsafe extern "C" fn(dsmBool_t, *mut envSetUp) -> i16,
        dsmCleanUp: unsafe extern "C" fn(dsmBool_t) -> i16,
        dsmInitEx:
            unsafe extern "C" fn(*mut Handle, *mut dsmInitExIn_t, *mut dsmInitExOut_t) -> i16,
        dsmTerminate: unsafe extern "C" fn(Handle) -> i16,
        dsmQuerySessInfo: unsafe extern "C" fn(Handle, *mut ApiSessInfo) -> i16,
        dsmQuerySessOptions: unsafe extern "C" fn(Handle, *mut optStruct) -> i16,
        dsmRegisterFS: unsafe extern "C" fn(Handle, *mut regFSData) -> i16,
        dsmBeginTxn: unsafe extern "C" fn(Handle) -> i16,
        dsmBindMC: unsafe extern "C" fn(Handle, *mut dsmObjName, c_int, *mut mcBindKey) -> i16,
        dsmSendObj: unsafe extern "C" fn(
            Handle,
            c_int,
            *mut c_void,
            *mut dsmObjName,
            *mut ObjAttr,
            *mut DataBlk,
        ) -> i16,
        dsmSendData: unsafe extern "C" fn(Handle, *mut DataBlk) -> i16,
        dsmEndSendObj: unsafe extern "C" fn(Handle) -> i16,
        dsmEndTxn: unsafe extern "C" fn(Handle, u8, *mut u16) -> i16,
        dsmDeleteObj: unsafe extern "C" fn(Handle, c_int, dsmDelInfo) -> i16,
        dsmUpdateObjEx:
            unsafe extern "C" fn(*mut dsmUpdateObjExIn_t, *mut dsmUpdateObjExOut_t) -> i16,
        dsmBeginQuery: unsafe extern "C" fn(Handle, c_int, *mut c_void) -> i16,
        dsmGetNextQObj: unsafe extern "C" fn(Handle, *mut DataBlk) -> i16,
        dsmEndQuery: unsafe extern "C" fn(Handle) -> i16,
        dsmBeginGetData: unsafe extern "C" fn(Handle, dsmBool_t, c_int, *mut dsmGetList) -> i16,
        dsmGetObj: unsafe extern "C" fn(Handle, *mut dsStruct64_t, *mut DataBlk) -> i16,
        dsmGetData: unsafe extern "C" fn(Handle, *mut DataBlk) -> i16,
        dsmEndGetObj: unsafe extern "C" fn(Handle) -> i16,
        dsmEndGetData: unsafe extern "C" fn(Handle) -> i16,
        dsmRCMsg: unsafe extern "C" fn(Handle, i16, *mut c_char) -> i16,
    }
}
