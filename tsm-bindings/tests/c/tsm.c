/*
 * Archives, lists, retrieves and deletes through the simulated TSM library. Every type and
 * prototype is declared here once more, by hand, so that a mistake in the Rust declarations
 * cannot cancel itself out.
 *
 * Arguments: node password filespace. The server's directory comes from TSM_SIM_DIR.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { bFalse, bTrue } bool32;
typedef struct { uint32_t hi, lo; } u64s;
typedef struct { uint32_t top, hi_hi, hi_lo, lo_hi, lo_lo; } u160;
typedef struct { uint16_t year; uint8_t month, day, hour, minute, second; } date;
typedef struct {
    uint16_t stVersion, version, release, level, subLevel;
    bool32 unicode;
} apiVersionEx;
typedef struct { uint16_t stVersion, version, release, level, subLevel; } appVersion;
typedef struct { char fs[1025], hl[1025], ll[257]; uint8_t objType; } objName;
typedef struct {
    uint16_t stVersion;
    uint32_t bufferLen, numBytes;
    char *bufferPtr;
    uint32_t numBytesCompressed;
    uint16_t reserved;
} dataBlk;
typedef struct {
    uint16_t stVersion;
    apiVersionEx *apiVersionExP;
    char *node, *owner, *password, *userName, *userPassword, *applicationType, *configfile;
    char *options;
    char dirDelimiter;
    bool32 useUnicode, bCrossPlatform, bService, bEncryptKeyEnabled;
    char *encryptionPassword;
    bool32 useTsmBuffers;
    uint8_t numTsmBuffers;
    appVersion *appVersionP;
} initExIn;
typedef struct {
    uint16_t stVersion;
    int16_t userNameAuthorities, infoRC;
    char adsmServerName[65];
    uint16_t serverVer, serverRel, serverLev, serverSubLev;
    bool32 bIsFailOverMode;
    char replServerName[65], homeServerName[65];
} initExOut;
typedef struct {
    uint16_t stVersion;
    char serverHost[65];
    uint16_t serverPort;
    date serverDate;
    char serverType[33];
    uint16_t serverVer, serverRel, serverLev, serverSubLev;
    char nodeType[17], fsdelim, hldelim;
    uint8_t compression, archDel, backDel;
    uint32_t maxBytesPerTxn;
    uint16_t maxObjPerTxn;
    char id[65], owner[65], confFile[1280];
    uint8_t opNoTrace;
    char domainName[31], policySetName[31];
    date polActDate;
    char dfltMCName[31];
    uint16_t gpBackRetn, gpArchRetn;
    char adsmServerName[65];
    bool32 archiveRetentionProtection;
    u64s maxBytesPerTxn_64;
    bool32 lanFreeEnabled;
    int dedupType;
    char accessNode[65];
    int failOverCfgType;
    char replServerName[65], homeServerName[65], replServerHost[65];
    int32_t replServerPort;
} sessInfo;
typedef struct { uint16_t fsInfoLength; char fsInfo[500]; } unixFs;
typedef struct { char driveLetter; uint16_t fsInfoLength; char fsInfo[500]; } dosFs;
typedef union { unixFs u; dosFs d; } fsAttr;
typedef struct {
    uint16_t stVersion;
    char *fsName, *fsType;
    u64s occupancy, capacity;
    fsAttr attr;
} regFs;
typedef struct {
    uint16_t stVersion;
    char mcName[31];
    bool32 backup_cg_exists, archive_cg_exists;
    char backup_copy_dest[31], archive_copy_dest[31];
} bindKey;
typedef struct {
    uint16_t stVersion;
    char owner[65];
    u64s sizeEstimate;
    bool32 objCompressed;
    uint16_t objInfoLength;
    char *objInfo, *mcNameP;
    bool32 disableDeduplication, useExtObjInfo;
} objAttr;
typedef struct { uint16_t stVersion; char *descr; } sndArchive;
typedef struct {
    uint16_t stVersion;
    objName *name;
    char *owner;
    date insLower, insUpper, expLower, expUpper;
    char *descr;
} qryArchive;
typedef struct {
    uint16_t stVersion;
    objName name;
    uint32_t copyGroup;
    char mcName[31], owner[65];
    u64s objId, reserved;
    uint8_t mediaClass;
    date insDate, expDate;
    char descr[256];
    uint16_t objInfolen;
    char reservedObjInfo[255];
    u160 restoreOrder;
    u64s sizeEstimate;
    uint8_t compressType, retentionInitiated, objHeld, encryptionType;
    bool32 clientDeduplicated;
    char objInfo[1500], compressAlg[33];
} respArchive;
typedef struct {
    uint16_t stVersion;
    uint32_t numObjId;
    u64s *objId;
    void *partialObjData;
} getList;
typedef struct { uint16_t stVersion; objName *name; uint32_t copyGroup; } delBack;
typedef struct { uint16_t stVersion; u64s objId; } delArch;
typedef union { delBack back; delArch arch; } delInfo;

void dsmQueryApiVersionEx(apiVersionEx *);
int16_t dsmSetUp(bool32, void *);
int16_t dsmCleanUp(bool32);
int16_t dsmInitEx(uint32_t *, initExIn *, initExOut *);
int16_t dsmTerminate(uint32_t);
int16_t dsmQuerySessInfo(uint32_t, sessInfo *);
int16_t dsmRegisterFS(uint32_t, regFs *);
int16_t dsmBeginTxn(uint32_t);
int16_t dsmBindMC(uint32_t, objName *, int, bindKey *);
int16_t dsmSendObj(uint32_t, int, void *, objName *, objAttr *, dataBlk *);
int16_t dsmSendData(uint32_t, dataBlk *);
int16_t dsmEndSendObj(uint32_t);
int16_t dsmEndTxn(uint32_t, uint8_t, uint16_t *);
int16_t dsmUpdateObj(uint32_t, int, void *, objName *, objAttr *, uint32_t);
int16_t dsmBeginQuery(uint32_t, int, void *);
int16_t dsmGetNextQObj(uint32_t, dataBlk *);
int16_t dsmEndQuery(uint32_t);
int16_t dsmBeginGetData(uint32_t, bool32, int, getList *);
int16_t dsmGetObj(uint32_t, u64s *, dataBlk *);
int16_t dsmGetData(uint32_t, dataBlk *);
int16_t dsmEndGetObj(uint32_t);
int16_t dsmEndGetData(uint32_t);
int16_t dsmDeleteObj(uint32_t, int, delInfo);
int16_t dsmRCMsg(uint32_t, int16_t, char *);

enum { BYTES = 700000, CHUNK = 32764 };

static char *filespace;

#define WANT(rc, call)                                                              \
    do {                                                                            \
        int got = (call);                                                           \
        if (got != (rc)) {                                                          \
            fprintf(stderr, "%s:%d: %s is %d, not %d\n", __FILE__, __LINE__, #call, \
                    got, (rc));                                                     \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

static uint64_t checksum(const char *data, size_t bytes)
{
    uint64_t sum = 14695981039346656037u;
    for (size_t i = 0; i < bytes; i++)
        sum = (sum ^ (unsigned char)data[i]) * 1099511628211u;
    return sum;
}

static uint32_t sign_on(char *node, char *password, int16_t expected)
{
    apiVersionEx version = {.stVersion = 2};
    appVersion application = {.stVersion = 1, .version = 1};
    dsmQueryApiVersionEx(&version);
    initExIn in = {.stVersion = 5, .apiVersionExP = &version, .node = node, .owner = "",
                   .password = password, .applicationType = "GNU/Linux",
                   .options = "-se=anyserver", .appVersionP = &application};
    initExOut out = {.stVersion = 3};
    uint32_t handle = 0;
    WANT(expected, dsmInitEx(&handle, &in, &out));
    return handle;
}

static void set_name(objName *name, const char *hl, const char *ll)
{
    memset(name, 0, sizeof *name);
    strcpy(name->fs, filespace);
    strcpy(name->hl, hl);
    strcpy(name->ll, ll);
    name->objType = 1;
}

/* Sends one object; what ltsm leaves uninitialised is set to garbage here. */
static void send_object(uint32_t handle, objName *name, char *data, uint32_t bytes, char *info)
{
    bindKey key = {.stVersion = 1};
    sndArchive archive = {.stVersion = 1, .descr = "from C"};
    objAttr attr = {.stVersion = 4, .sizeEstimate = {0, bytes ? bytes : 1},
                    .objInfoLength = 48, .objInfo = info};
    attr.disableDeduplication = 832629278;
    attr.useExtObjInfo = 21923;
    WANT(2301, dsmSendObj(handle, 1, &archive, name, &attr, NULL));
    WANT(0, dsmBindMC(handle, name, 1, &key));
    WANT(1, key.archive_cg_exists);
    WANT(0, dsmSendObj(handle, 1, &archive, name, &attr, NULL));
    for (uint32_t at = 0; at < bytes; at += CHUNK) {
        uint32_t length = bytes - at < CHUNK ? bytes - at : CHUNK;
        dataBlk block = {.stVersion = 3, .bufferLen = length, .bufferPtr = data + at};
        WANT(0, dsmSendData(handle, &block));
        WANT((int)length, (int)block.numBytes);
    }
    WANT(0, dsmEndSendObj(handle));
}

/* Lists objects, the last of which is left in *found; returns how many there are. */
static int list(uint32_t handle, const char *hl, const char *ll, respArchive *found)
{
    objName name;
    set_name(&name, hl, ll);
    qryArchive query = {.stVersion = 1, .name = &name, .owner = "", .descr = "*"};
    query.insUpper = query.expUpper = (date){65535, 12, 31, 23, 59, 59};
    WANT(0, dsmBeginQuery(handle, 0, &query));
    int count = 0;
    for (;;) {
        found->stVersion = 7;
        dataBlk block = {.stVersion = 3, .bufferLen = sizeof *found, .bufferPtr = (char *)found};
        int rc = dsmGetNextQObj(handle, &block);
        if (rc == 2200) {
            WANT((int)sizeof *found, (int)block.numBytes);
            count++;
            continue;
        }
        WANT(count ? 121 : 2, rc);
        WANT(0, (int)block.numBytes);
        break;
    }
    WANT(0, dsmEndQuery(handle));
    return count;
}

static uint32_t retrieve(uint32_t handle, u64s id, char *data)
{
    getList request = {.stVersion = 2, .numObjId = 1, .objId = &id};
    WANT(0, dsmBeginGetData(handle, bTrue, 1, &request));
    uint32_t got = 0;
    dataBlk block = {.stVersion = 3, .bufferLen = CHUNK, .bufferPtr = data};
    int rc = dsmGetObj(handle, &id, &block);
    while (rc == 2200) {
        got += block.numBytes;
        block.bufferPtr = data + got;
        block.bufferLen = BYTES + 1 - got < CHUNK ? BYTES + 1 - got : CHUNK;
        block.numBytes = 0;
        rc = dsmGetData(handle, &block);
    }
    WANT(121, rc);
    got += block.numBytes;
    WANT(0, dsmEndGetObj(handle));
    WANT(0, dsmEndGetData(handle));
    return got;
}

static void check_order(uint32_t handle, objName *name)
{
    uint16_t reason = 77;
    dataBlk block = {.stVersion = 3, .bufferLen = 1, .bufferPtr = "x"};
    bindKey key = {.stVersion = 1};
    WANT(2041, dsmEndTxn(handle, 1, &reason));
    WANT(2041, dsmSendData(handle, &block));
    WANT(2041, dsmEndQuery(handle));
    WANT(2041, dsmEndGetData(handle));
    WANT(0, dsmBeginTxn(handle));
    WANT(2041, dsmBeginTxn(handle));
    WANT(2011, dsmEndTxn(handle, 3, &reason));
    name->ll[1] = '*';
    WANT(2050, dsmBindMC(handle, name, 1, &key));
    name->ll[0] = 'x';
    WANT(2018, dsmBindMC(handle, name, 1, &key));
    WANT(0, dsmEndTxn(handle, 2, &reason));
    WANT(3, reason);
    WANT(2014, dsmBeginTxn(handle + 1000));
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    filespace = argv[3];
    _Static_assert(sizeof(respArchive) == 4532 && sizeof(sessInfo) == 2028, "layout");
    _Static_assert(sizeof(initExIn) == 128 && sizeof(initExOut) == 216, "layout");

    static char data[BYTES], back[BYTES + 1], info[48];
    for (int i = 0; i < BYTES; i++)
        data[i] = (char)(i * 31 + i / 509);
    for (int i = 0; i < 48; i++)
        info[i] = (char)(i * 5);

    WANT(0, dsmSetUp(bTrue, NULL));
    sign_on(argv[1], "wrong", 137);
    sign_on("nobody", "wrong", 53);
    uint32_t handle = sign_on(argv[1], argv[2], 0);
    sessInfo session = {.stVersion = 6};
    WANT(0, dsmQuerySessInfo(handle, &session));
    WANT(4096, session.maxObjPerTxn);
    WANT('/', session.hldelim);

    objName big, empty;
    set_name(&big, "/dir", "/big");
    set_name(&empty, "/", "/empty");
    objAttr attr = {.stVersion = 4};
    sndArchive archive = {.stVersion = 1, .descr = ""};
    WANT(0, dsmBeginTxn(handle));
    WANT(2061, dsmSendObj(handle, 1, &archive, &big, &attr, NULL));
    uint16_t reason = 77;
    WANT(0, dsmEndTxn(handle, 1, &reason));
    regFs fs = {.stVersion = 1, .fsName = filespace, .fsType = "ltsm"};
    memcpy(fs.attr.u.fsInfo, "fsinfo", 6);
    fs.attr.u.fsInfoLength = 6;
    WANT(0, dsmRegisterFS(handle, &fs));
    WANT(2062, dsmRegisterFS(handle, &fs));

    respArchive found;
    WANT(0, dsmBeginTxn(handle));
    send_object(handle, &big, data, BYTES, info);
    send_object(handle, &empty, data, 0, info);
    reason = 77;
    WANT(0, dsmEndTxn(handle, 1, &reason));
    WANT(0, reason);

    WANT(2, list(handle, "/*", "/*", &found));
    WANT(0, list(handle, "/dir", "/nothing", &found));
    WANT(1, list(handle, "/", "/empty", &found));
    WANT(0, (int)retrieve(handle, found.objId, back));
    WANT(1, list(handle, "/dir", "/big", &found));
    WANT(48, found.objInfolen);
    WANT(0, memcmp(found.objInfo, info, 48));
    WANT(0, memcmp(found.reservedObjInfo, info, 48));
    WANT(0, strcmp(found.descr, "from C"));
    WANT(BYTES, (int)retrieve(handle, found.objId, back));
    WANT(1, checksum(data, BYTES) == checksum(back, BYTES));

    info[0] = 99;
    objAttr changed = {.stVersion = 4, .sizeEstimate = {0, BYTES}, .objInfoLength = 48,
                       .objInfo = info};
    WANT(0, dsmUpdateObj(handle, 1, NULL, &big, &changed, 2));
    WANT(1, list(handle, "/dir", "/big", &found));
    WANT(99, found.objInfo[0]);

    delInfo which = {0};
    which.arch = (delArch){1, found.objId};
    WANT(0, dsmBeginTxn(handle));
    WANT(0, dsmDeleteObj(handle, 0, which));
    WANT(0, dsmEndTxn(handle, 1, &reason));
    WANT(0, reason);
    WANT(0, list(handle, "/dir", "/big", &found));
    WANT(1, list(handle, "/*", "/*", &found));

    check_order(handle, &big);
    char message[1025] = "";
    WANT(0, dsmRCMsg(handle, 2041, message));
    WANT(1, strstr(message, "RC2041") != NULL);
    WANT(0, dsmTerminate(handle));
    WANT(2014, dsmTerminate(handle));
    WANT(0, dsmCleanUp(bTrue));
    printf("%016llx\n", (unsigned long long)checksum(back, BYTES));
    return 0;
}
