/*
 * See edgerec.h. From the file upward: bytes, sha256, JSON, the zip, its manifest, the tables, the graph's external
 * tensors, onnxruntime, items, answers. A bundle is not trusted: what it declares is compared with what it has before
 * anything is read or allocated by it, in the order of edgerec/bundle.py and runtime/contents.py. Where those allow
 * more than edgerec ever writes (a zip comment, names beyond ASCII), this reader refuses. Of the model it reads what it
 * uses; the graph holds the rest.
 */
#if !defined(_WIN32) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE /* strict C11 hides mmap and madvise */
#endif
#define _FILE_OFFSET_BITS 64

#include "edgerec.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
#define ORT_CALL __stdcall
#else
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define ORT_CALL
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tables are used as they lie in the file: little-endian"
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MANIFEST "manifest.json"
#define SIGNATURE "signature.ed25519"
#define GRAPH "recommender.onnx"
#define GOLDENS "goldens.json"
#define ORDER "ids.order"

enum {
    FORMAT_VERSION = 1,
    ORT_API = 17,      /* of onnxruntime 1.17, the oldest that edgerec supports */
    MOST_MEMBERS = 64, /* a bundle has about 20 */
    MOST_TABLES = 6,
    MOST_STATES = 64, /* recencies */
    MOST_DIMENSIONS = 1 << 14,
    MOST_ROWS = INT32_MAX,
    MOST_GOLDEN = 256,          /* items of a golden request; exporters ask for 10 */
    LARGEST_MANIFEST = 4 << 20, /* bytes */
    LARGEST_JSON = 1 << 30,     /* bytes, so that an int counts the digits of a number */
    DEEPEST_JSON = 32,
    DEEPEST_GRAPH = 64,
    DIGEST = 32 /* bytes of a sha256 */
};

typedef struct {
    const uint8_t *at, *end;
} Span;

typedef struct {
    Span name, data;
    bool listed; /* by the manifest, with this sha256 */
    uint8_t sha256[DIGEST];
} Member;

typedef struct {
    const char *name;
    Span data;
    int type;
    int64_t shape[2];
    size_t rank;
} Table;

typedef struct {
    const uint32_t *offsets; /* [n_items + 1], into the text */
    Span text;
} Strings;

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtValue OrtValue;
typedef struct OrtShape OrtShape; /* OrtTensorTypeAndShapeInfo */
typedef void(ORT_CALL *Slot)(void);

/* What is needed of struct OrtApi in onnxruntime_c_api.h, a table that only ever grows at its end: slot and function. */
#define ORT_FUNCTIONS(F)                                                                                          \
    F(2, const char *, GetErrorMessage, (const OrtStatus *status))                                                \
    F(3, OrtStatus *, CreateEnv, (int level, const char *name, OrtEnv **made))                                    \
    F(8, OrtStatus *, CreateSessionFromArray,                                                                     \
      (const OrtEnv *env, const void *model, size_t size, const OrtSessionOptions *options, OrtSession **made))   \
    F(9, OrtStatus *, Run,                                                                                        \
      (OrtSession * session, const void *options, const char *const *input_names, const OrtValue *const *inputs,  \
       size_t n_inputs, const char *const *output_names, size_t n_outputs, OrtValue **outputs))                   \
    F(10, OrtStatus *, CreateSessionOptions, (OrtSessionOptions * *made))                                         \
    F(22, OrtStatus *, SetSessionLogSeverityLevel, (OrtSessionOptions * options, int level))                      \
    F(24, OrtStatus *, SetIntraOpNumThreads, (OrtSessionOptions * options, int threads))                          \
    F(25, OrtStatus *, SetInterOpNumThreads, (OrtSessionOptions * options, int threads))                          \
    F(49, OrtStatus *, CreateTensorWithDataAsOrtValue,                                                            \
      (const OrtMemoryInfo *memory, void *data, size_t size, const int64_t *shape, size_t rank, int type,         \
       OrtValue **made))                                                                                          \
    F(51, OrtStatus *, GetTensorMutableData, (OrtValue * value, void **data))                                     \
    F(60, OrtStatus *, GetTensorElementType, (const OrtShape *shape, int *type))                                  \
    F(64, OrtStatus *, GetTensorShapeElementCount, (const OrtShape *shape, size_t *count))                        \
    F(65, OrtStatus *, GetTensorTypeAndShape, (const OrtValue *value, OrtShape **made))                           \
    F(69, OrtStatus *, CreateCpuMemoryInfo, (int allocator, int type, OrtMemoryInfo **made))                      \
    F(92, void, ReleaseEnv, (OrtEnv * env))                                                                       \
    F(93, void, ReleaseStatus, (OrtStatus * status))                                                              \
    F(94, void, ReleaseMemoryInfo, (OrtMemoryInfo * memory))                                                      \
    F(95, void, ReleaseSession, (OrtSession * session))                                                           \
    F(96, void, ReleaseValue, (OrtValue * value))                                                                 \
    F(99, void, ReleaseTensorTypeAndShapeInfo, (OrtShape * shape))                                                \
    F(100, void, ReleaseSessionOptions, (OrtSessionOptions * options))                                            \
    F(130, OrtStatus *, AddSessionConfigEntry, (OrtSessionOptions * options, const char *key, const char *value)) \
    F(150, OrtStatus *, AddInitializer, (OrtSessionOptions * options, const char *name, const OrtValue *value))   \
    F(210, OrtStatus *, AddExternalInitializers,                                                                  \
      (OrtSessionOptions * options, const char *const *names, const OrtValue *const *values, size_t count))

typedef struct {
#define MEMBER(slot, type, name, arguments) type(ORT_CALL *name) arguments;
    ORT_FUNCTIONS(MEMBER)
#undef MEMBER
} Ort;

struct edgerec {
    char *path;
    Span file;
    Member members[MOST_MEMBERS];
    size_t n_members;
    int64_t n_items;
    size_t embedding_size, states;
    bool shared, mask_seen;
    Table tables[MOST_TABLES];
    size_t n_tables;
    Strings ids, titles;
    const uint32_t *order; /* [n_items], the places of the ids in the order of their bytes */
    uint32_t *own_order;   /* that, where the bundle has none */
    Ort ort;               /* without functions until it is loaded */
    const char *ort_version;
    OrtEnv *env;
    OrtMemoryInfo *memory;
    OrtSession *session;
    OrtValue *values[MOST_TABLES]; /* the tables; they must outlive the session */
    float *zeros;                  /* [states, embedding_size] */
    OrtValue *no_state;            /* these: what every answer starts from */
};

/* ---- errors ---- */

#ifdef __GNUC__
#define LIKE_PRINTF(at) __attribute__((format(printf, at, (at) + 1)))
#else
#define LIKE_PRINTF(at)
#endif

static _Thread_local char message[1024];

LIKE_PRINTF(1) static const char *fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
    for (char *at = message; *at; at++) { /* onnxruntime's own messages may have several lines */
        if (*at == '\n' || *at == '\r') *at = ' ';
    }
    return message;
}

/* What is wrong with the bundle. */
LIKE_PRINTF(2) static const char *refuse(const edgerec *r, const char *format, ...)
{
    char got[512];
    va_list list;
    va_start(list, format);
    vsnprintf(got, sizeof got, format, list);
    va_end(list);
    return fail("%s %s; expected a whole .edgerec bundle: copy or export it again", r->path, got);
}

/* ---- bytes ---- */

static size_t left(Span span)
{
    return (size_t)(span.end - span.at);
}

static Span span_of(const uint8_t *at, size_t size)
{
    return (Span){at, at + size};
}

static bool equals(Span span, const char *text)
{
    size_t size = strlen(text);
    return left(span) == size && memcmp(span.at, text, size) == 0;
}

static bool same(Span a, Span b)
{
    return left(a) == left(b) && memcmp(a.at, b.at, left(a)) == 0;
}

static uint32_t u16(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static uint32_t u32(const uint8_t *at)
{
    return u16(at) | u16(at + 2) << 16;
}

/* RFC 3629: no surrogates, and nothing longer than it must be. */
static bool is_utf8(Span text)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    while (text.at < text.end) {
        uint32_t code = *text.at++;
        size_t more = code < 0x80 ? 0 : code < 0xE0 ? 1 : code < 0xF0 ? 2 : 3;
        if (more > left(text) || (code >= 0x80 && code < 0xC0) || code > 0xF4) return false;
        code &= more ? 0x7Fu >> (more + 1) : 0x7F;
        for (size_t i = 0; i < more; i++, text.at++) {
            if ((*text.at & 0xC0) != 0x80) return false;
            code = code << 6 | (*text.at & 0x3F);
        }
        if (code < least[more] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
    }
    return true;
}

/* ---- sha256 (FIPS 180-4) ---- */

static const uint32_t SHA256_K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turned(uint32_t word, int bits)
{
    return word >> bits | word << (32 - bits);
}

static void sha256_block(uint32_t hash[8], const uint8_t block[64])
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        const uint8_t *at = block + 4 * i;
        w[i] = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(s, hash, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t e = turned(s[4], 6) ^ turned(s[4], 11) ^ turned(s[4], 25);
        uint32_t a = turned(s[0], 2) ^ turned(s[0], 13) ^ turned(s[0], 22);
        uint32_t first = s[7] + e + ((s[4] & s[5]) ^ (~s[4] & s[6])) + SHA256_K[i] + w[i];
        uint32_t second = a + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof s[0]);
        s[4] += first;
        s[0] = first + second;
    }
    for (int i = 0; i < 8; i++) hash[i] += s[i];
}

static void sha256(Span data, uint8_t digest[DIGEST])
{
    uint32_t hash[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint64_t bits = (uint64_t)left(data) * 8;
    for (; left(data) >= 64; data.at += 64) sha256_block(hash, data.at);
    uint8_t last[128] = {0};
    size_t rest = left(data), size = rest < 56 ? 64 : 128;
    memcpy(last, data.at, rest);
    last[rest] = 0x80;
    for (size_t i = 0; i < 8; i++) last[size - 1 - i] = (uint8_t)(bits >> (8 * i));
    for (size_t at = 0; at < size; at += 64) sha256_block(hash, last + at);
    for (size_t i = 0; i < DIGEST; i++) digest[i] = (uint8_t)(hash[i / 4] >> (24 - 8 * (i % 4)));
}

/* ---- JSON (RFC 8259), where it lies: a value is the span of its text ---- */

static bool json_skip(Span *in, int depth);

static bool next_is(Span in, const char *any)
{
    return in.at < in.end && *in.at && strchr(any, *in.at);
}

static void json_space(Span *in)
{
    while (next_is(*in, " \t\r\n")) in->at++;
}

/* Pass one of some characters, with the space before it, if it comes next. */
static bool json_take(Span *in, const char *any)
{
    json_space(in);
    bool found = next_is(*in, any);
    in->at += found;
    return found;
}

static bool json_string(Span *in)
{
    if (!json_take(in, "\"")) return false;
    while (in->at < in->end && *in->at >= ' ') {
        uint8_t byte = *in->at++;
        if (byte == '"') return true;
        if (byte != '\\') continue;
        if (!next_is(*in, "\"\\/bfnrtu")) return false;
        for (size_t hexes = *in->at++ == 'u' ? 4 : 0; hexes; hexes--, in->at++) {
            if (!next_is(*in, "0123456789abcdefABCDEF")) return false;
        }
    }
    return false;
}

/* Pass digits: put them behind those of a number, up to 17, and return how many there were. */
static size_t json_digits(Span *in, double *number, int *dropped)
{
    const uint8_t *start = in->at;
    for (; next_is(*in, "0123456789"); in->at++) {
        if (*number < 1e16) *number = *number * 10 + (*in->at - '0');
        else *dropped += 1;
    }
    return (size_t)(in->at - start);
}

/* Pass a number, to 15 digits of it; strtod would ask the program's locale what a decimal point is. */
static bool json_number(Span *in, double *number)
{
    double digits = 0, exponent = 0;
    int power = 0, ignored = 0;
    bool negative = next_is(*in, "-");
    in->at += negative;
    bool zero = next_is(*in, "0");
    size_t whole = json_digits(in, &digits, &power);
    if (whole == 0 || (zero && whole > 1)) return false;
    if (next_is(*in, ".")) {
        in->at++;
        int dropped = 0;
        size_t places = json_digits(in, &digits, &dropped);
        if (places == 0) return false;
        power -= (int)places - dropped;
    }
    if (next_is(*in, "eE")) {
        in->at++;
        bool down = next_is(*in, "-");
        in->at += next_is(*in, "+-");
        if (json_digits(in, &exponent, &ignored) == 0) return false;
        power += (down ? -1 : 1) * (exponent < 1e6 ? (int)exponent : 1000000);
    }
    for (; power > 0 && digits > 0 && digits < DBL_MAX / 10; power--) digits *= 10;
    for (; power < 0 && digits > 0; power++) digits /= 10;
    *number = negative ? -digits : digits;
    return true;
}

static bool json_word(Span *in, const char *word)
{
    size_t size = strlen(word);
    bool found = left(*in) >= size && memcmp(in->at, word, size) == 0;
    in->at += found ? size : 0;
    return found;
}

static bool json_container(Span *in, int depth)
{
    bool object = *in->at++ == '{';
    const char *close = object ? "}" : "]";
    if (json_take(in, close)) return true;
    do {
        if (object && !(json_string(in) && json_take(in, ":"))) return false;
        if (!json_skip(in, depth + 1)) return false;
    } while (json_take(in, ","));
    return json_take(in, close);
}

/* Pass one value; false where there is none, or it is nested too deep. */
static bool json_skip(Span *in, int depth)
{
    double ignored;
    json_space(in);
    if (depth > DEEPEST_JSON) return false;
    if (next_is(*in, "{[")) return json_container(in, depth);
    if (next_is(*in, "\"")) return json_string(in);
    return json_word(in, "true") || json_word(in, "false") || json_word(in, "null") || json_number(in, &ignored);
}

/* Whether a text is one JSON value of UTF-8. What follows asks for parts of such a text only. */
static bool is_json(Span text)
{
    if (left(text) > LARGEST_JSON || !is_utf8(text) || !json_skip(&text, 0)) return false;
    json_space(&text);
    return text.at == text.end;
}

/*
 * Pass to the next entry of an array, or where a name is wanted of an object. `rest` starts as the whole value; the
 * name is its text between the quotes, escapes as they are.
 */
static bool json_next(Span *rest, Span *name, Span *value)
{
    if (!json_take(rest, ",") && !json_take(rest, name ? "{" : "[")) return false;
    json_space(rest);
    if (name) {
        const uint8_t *quote = rest->at;
        if (!json_string(rest)) return false; /* of an empty object */
        *name = (Span){quote + 1, rest->at - 1};
        if (!json_take(rest, ":")) return false;
        json_space(rest);
    }
    value->at = rest->at;
    bool found = json_skip(rest, 0); /* not in an empty array */
    value->end = rest->at;
    return found;
}

static size_t json_length(Span array)
{
    size_t length = 0;
    for (Span one; json_next(&array, NULL, &one);) length++;
    return length;
}

/* Find an object's entry. One that stands twice, or beside a name with an escape, is none: readers would differ. */
static bool json_find(Span object, const char *wanted, Span *value)
{
    size_t found = 0;
    Span name, held;
    while (json_next(&object, &name, &held)) {
        if (memchr(name.at, '\\', left(name))) return false;
        if (equals(name, wanted)) {
            *value = held;
            found++;
        }
    }
    return found == 1;
}

/* A whole number from `least` to `most`, which is below 2^53. */
static bool json_count(Span value, uint64_t least, uint64_t most, uint64_t *count)
{
    double number = 0;
    int dropped = 0;
    if (json_digits(&value, &number, &dropped) == 0 || value.at < value.end || dropped) return false;
    *count = number <= (double)most ? (uint64_t)number : 0;
    return number >= (double)least && number <= (double)most;
}

static bool json_real(Span value, double *number)
{
    return json_number(&value, number) && fabs(*number) <= (double)FLT_MAX;
}

static bool json_flag(Span value, bool *flag)
{
    *flag = equals(value, "true");
    return *flag || equals(value, "false");
}

/* ---- the zip (PKWARE APPNOTE 4.3), its members stored ---- */

enum { END_SIZE = 22, ENTRY_SIZE = 46, LOCAL_SIZE = 30 };

/* The place of a member; n_members where there is none. */
static size_t find_member(const edgerec *r, Span name)
{
    size_t place = 0;
    while (place < r->n_members && !same(r->members[place].name, name)) place++;
    return place;
}

static const Member *member(const edgerec *r, const char *name)
{
    size_t place = find_member(r, span_of((const uint8_t *)name, strlen(name)));
    return place < r->n_members ? &r->members[place] : NULL;
}

/* Whether a name stays inside the folder that it is extracted to, is written in the only way, and is ASCII. */
static bool is_plain(Span name)
{
    Span part = {name.at, name.at};
    for (; part.end <= name.end; part.end++) {
        if (part.end < name.end && *part.end != '/') {
            if (*part.end < ' ' || *part.end > '~' || *part.end == '\\' || *part.end == ':') return false;
            continue;
        }
        if (left(part) == 0 || equals(part, ".") || equals(part, "..")) return false;
        part.at = part.end + 1;
    }
    return true;
}

/* Where an entry's member lies before `end`, the directory; its local header must say what the entry says. */
static const char *locate(edgerec *r, const uint8_t *entry, const uint8_t *end, Member *made)
{
    size_t offset = u32(entry + 42), size = u32(entry + 24), room = (size_t)(end - r->file.at);
    const char *outside = "has a member that does not lie inside the file";
    if (offset > room || room - offset < LOCAL_SIZE) return refuse(r, "%s", outside);
    const uint8_t *local = r->file.at + offset;
    size_t names = u16(local + 26), start = LOCAL_SIZE + names + u16(local + 28);
    if (start > room - offset || size > room - offset - start) return refuse(r, "%s", outside);
    bool agree = u32(local) == 0x04034b50 && memcmp(local + 6, entry + 8, 4) == 0 && /* flags, method */
                 memcmp(local + 14, entry + 16, 14) == 0 &&                          /* crc, sizes, name's length */
                 memcmp(local + LOCAL_SIZE, made->name.at, names) == 0;
    if (!agree) return refuse(r, "has a member with two headers that disagree");
    made->data = span_of(local + start, size);
    return NULL;
}

/* Read one entry of the directory, and pass it. */
static const char *read_entry(edgerec *r, Span *directory)
{
    const uint8_t *entry = directory->at, *end = r->file.end - END_SIZE;
    size_t name = left(*directory) < ENTRY_SIZE ? 0 : u16(entry + 28);
    if (name == 0 || u32(entry) != 0x02014b50) return refuse(r, "has a damaged directory");
    size_t size = ENTRY_SIZE + name + u16(entry + 30) + u16(entry + 32);
    if (size > left(*directory)) return refuse(r, "has a damaged directory");
    Member made = {.name = span_of(entry + ENTRY_SIZE, name)};
    bool stored = u16(entry + 10) == 0 && u32(entry + 20) == u32(entry + 24) && (u16(entry + 8) | 0x800) == 0x800;
    if (!stored || !is_plain(made.name) || find_member(r, made.name) < r->n_members) {
        return refuse(r, "has a member that is compressed, encrypted, there twice, or not a plain path");
    }
    const char *error = locate(r, entry, r->file.at + u32(end + 16), &made);
    r->members[r->n_members++] = made;
    directory->at += size;
    return error;
}

/* Find the members; together they are no larger than the file, so none is hashed twice. */
static const char *read_zip(edgerec *r)
{
    if (left(r->file) < END_SIZE) return refuse(r, "is no zip file, or was cut off");
    const uint8_t *end = r->file.end - END_SIZE;
    size_t count = u16(end + 10);
    if (u32(end) != 0x06054b50 || u32(end + 4) != 0 || u16(end + 8) != count || u16(end + 20) != 0) {
        return refuse(r, "is no zip file, or was cut off");
    }
    size_t size = u32(end + 12), offset = u32(end + 16), room = left(r->file) - END_SIZE;
    if (offset > room || size != room - offset || count > MOST_MEMBERS) {
        return refuse(r, "has a damaged directory, or more than %d members", MOST_MEMBERS);
    }
    Span directory = {r->file.at + offset, end};
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        const char *error = read_entry(r, &directory);
        if (error) return error;
        total += left(r->members[i].data);
    }
    if (directory.at != directory.end || total > left(r->file)) {
        return refuse(r, "has members that are larger than the file");
    }
    return NULL;
}

/* ---- the manifest ---- */

static bool read_digest(Span value, uint8_t digest[DIGEST])
{
    if (left(value) != 2 * DIGEST + 2 || *value.at != '"') return false;
    for (size_t i = 0; i < 2 * DIGEST; i++) {
        const char *hexes = "0123456789abcdef", *found = strchr(hexes, value.at[1 + i]);
        if (!found || !*found) return false;
        digest[i / 2] = (uint8_t)(digest[i / 2] << 4 | (found - hexes));
    }
    return true;
}

/* Compare one entry of the manifest's `members` with the member's size, and keep its sha256. */
static const char *check_listed(edgerec *r, Span name, Span entry)
{
    size_t place = find_member(r, name);
    Member *listed = &r->members[place];
    if (place == r->n_members || listed->listed || equals(name, MANIFEST) || equals(name, SIGNATURE)) {
        return refuse(r, "has members that its manifest does not list, or lacks some");
    }
    Span rest = entry, key, value;
    uint64_t size = 0, names = 0;
    while (json_next(&rest, &key, &value)) names++;
    listed->listed = names == 2 && json_find(entry, "size", &value) && json_count(value, 0, UINT32_MAX, &size) &&
                     size == left(listed->data) && json_find(entry, "sha256", &value) &&
                     read_digest(value, listed->sha256);
    if (listed->listed) return NULL;
    return refuse(r, "was changed: '%.*s' differs from its size", (int)left(name), (const char *)name.at);
}

static const char *check_hashes(const edgerec *r)
{
    for (size_t i = 0; i < r->n_members; i++) {
        const Member *one = &r->members[i];
        uint8_t digest[DIGEST];
        if (!one->listed) continue;
        sha256(one->data, digest);
        if (memcmp(digest, one->sha256, DIGEST) != 0) {
            return refuse(r, "was changed: '%.*s' differs from its sha256", (int)left(one->name),
                          (const char *)one->name.at);
        }
    }
    return NULL;
}

/* Compare every member with the manifest: all sizes first, then all hashes. */
static const char *check_manifest(edgerec *r)
{
    const Member *manifest = member(r, MANIFEST);
    Span version, members, name, entry;
    uint64_t format = 0;
    size_t others = member(r, SIGNATURE) ? 2 : 1, listed = 0;
    if (!manifest || left(manifest->data) > LARGEST_MANIFEST || !is_json(manifest->data)) {
        return refuse(r, "has no manifest of strict JSON");
    }
    bool numbered =
        json_find(manifest->data, "format_version", &version) && json_count(version, 1, FORMAT_VERSION, &format);
    if (!numbered) return refuse(r, "has a format version that is not 1, or none (a newer one needs a newer edgerec)");
    if (!json_find(manifest->data, "members", &members)) return refuse(r, "has a manifest without members");
    for (; json_next(&members, &name, &entry); listed++) {
        const char *error = check_listed(r, name, entry);
        if (error) return error;
    }
    if (listed + others != r->n_members) {
        return refuse(r, "has members that its manifest does not list, or lacks some");
    }
    return check_hashes(r);
}

/* ---- the model and its tables, as runtime/contents.py ---- */

#define UNUSABLE "holds no usable recommender: "

static const char *read_model(edgerec *r)
{
    Span model, value;
    uint64_t n = 0, d = 0;
    if (!json_find(member(r, MANIFEST)->data, "model", &model)) return refuse(r, UNUSABLE "its manifest has no model");
    bool usable = json_find(model, "n_items", &value) && json_count(value, 1, MOST_ROWS, &n) &&
                  json_find(model, "embedding_size", &value) && json_count(value, 1, MOST_DIMENSIONS, &d) &&
                  json_find(model, "shared", &value) && json_flag(value, &r->shared) &&
                  json_find(model, "mask_seen", &value) && json_flag(value, &r->mask_seen) &&
                  json_find(model, "decays", &value);
    r->n_items = (int64_t)n;
    r->embedding_size = (size_t)d;
    r->states = usable ? json_length(value) : 0;
    return r->states > 0 && r->states <= MOST_STATES
               ? NULL
               : refuse(r, UNUSABLE "model.n_items, embedding_size, decays, shared or mask_seen is out of range");
}

/* The member of a name, if it has so many bytes and lies where 4-byte numbers may. */
static const char *sized(const edgerec *r, const char *name, uint64_t size, Span *data)
{
    const Member *found = member(r, name);
    if (!found || left(found->data) != size || (uintptr_t)found->data.at % sizeof(float) != 0) {
        return refuse(r, UNUSABLE "member %s is missing, not aligned, or not of %llu bytes", name,
                      (unsigned long long)size);
    }
    *data = found->data;
    return NULL;
}

enum { FLOATS = 1, INT8S = 3, INT64S = 7 }; /* ONNXTensorElementDataType */

static const char *add_table(edgerec *r, const char *name, int type)
{
    Table *table = &r->tables[r->n_tables++];
    int64_t n = r->n_items + 1, d = type == INT8S ? (int64_t)r->embedding_size : 1;
    *table = (Table){.name = name, .type = type, .shape = {type == INT8S ? d : n, n}, .rank = type == INT8S ? 2 : 1};
    const char *error = sized(r, name, (uint64_t)n * (uint64_t)d * (type == INT8S ? 1 : sizeof(float)), &table->data);
    if (error || type == INT8S) return error;
    const float *values = (const float *)(const void *)table->data.at;
    for (int64_t row = 1; row < n; row++) {
        if (!isfinite(values[row])) return refuse(r, UNUSABLE "%s is not finite", name);
    }
    if (!strstr(name, ".scale") && !(values[0] < -1e38F)) { /* what scores below, the graph never returns */
        return refuse(r, UNUSABLE "%s would return the padding item", name);
    }
    return NULL;
}

/* Offsets must rise from 0 to the size of the text, which is UTF-8, and cut no character. */
static const char *read_strings(edgerec *r, const char *offsets, const char *text, Strings *made)
{
    Span data;
    const Member *found = member(r, text);
    const char *error = sized(r, offsets, 4 * ((uint64_t)r->n_items + 1), &data);
    if (error || !found) return error ? error : refuse(r, UNUSABLE "member %s is missing", text);
    *made = (Strings){(const uint32_t *)(const void *)data.at, found->data};
    size_t size = left(found->data), n = (size_t)r->n_items;
    bool good = made->offsets[0] == 0 && made->offsets[n] == size && is_utf8(found->data);
    for (size_t i = 0; good && i < n; i++) {
        uint32_t at = made->offsets[i + 1];
        good = at >= made->offsets[i] && at <= size && (at == size || (found->data.at[at] & 0xC0) != 0x80);
    }
    return good ? NULL : refuse(r, UNUSABLE "%s are no places in a text of UTF-8", offsets);
}

static const char *read_order(edgerec *r)
{
    Span data;
    const char *error = sized(r, ORDER, 4 * (uint64_t)r->n_items, &data);
    if (error) return error;
    r->order = (const uint32_t *)(const void *)data.at;
    for (int64_t i = 0; i < r->n_items; i++) {
        if (r->order[i] >= r->n_items) return refuse(r, UNUSABLE "%s has places outside the catalogue", ORDER);
    }
    return NULL;
}

static const char *read_contents(edgerec *r)
{
    static const struct {
        const char *name;
        int type;
    } tables[MOST_TABLES] = {{"bias.f32", FLOATS},   {"popularity.f32", FLOATS}, {"item_out.scale", FLOATS},
                             {"item_out.i8", INT8S}, {"item_in.scale", FLOATS},  {"item_in.i8", INT8S}};
    const char *error = read_model(r);
    size_t count = r->shared ? MOST_TABLES - 2 : MOST_TABLES; /* one table may serve history and candidates */
    for (size_t i = 0; !error && i < count; i++) error = add_table(r, tables[i].name, tables[i].type);
    error = error ? error : read_strings(r, "ids.offsets", "ids.utf8", &r->ids);
    error = error ? error : read_strings(r, "titles.offsets", "titles.utf8", &r->titles);
    return error || !member(r, ORDER) ? error : read_order(r);
}

/* ---- what the graph would read from outside itself, as runtime/graph_scan.py ---- */

typedef struct {
    uint64_t number, value; /* the value of a whole number */
    bool is_bytes;
    Span bytes; /* of a string or message */
} Field;

static bool varint(Span *in, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 70 && in->at < in->end; shift += 7) {
        uint8_t byte = *in->at++;
        *value |= (uint64_t)(byte & 0x7F) << shift; /* of the tenth byte, one bit counts */
        if (byte < 0x80) return true;
    }
    return false;
}

/* Pass one field of a protobuf message; false where it is malformed. */
static bool next_field(Span *in, Field *field)
{
    enum { VARINT, FIXED64, BYTES, FIXED32 = 5 };
    uint64_t tag = 0, size = 0;
    *field = (Field){0};
    if (!varint(in, &tag)) return false;
    field->number = tag >> 3;
    field->is_bytes = (tag & 7) == BYTES;
    if ((tag & 7) == VARINT) return varint(in, &field->value);
    if ((tag & 7) == FIXED64) size = 8;
    else if ((tag & 7) == FIXED32) size = 4;
    else if (!field->is_bytes || !varint(in, &size)) return false;
    if (size > left(*in)) return false;
    field->bytes = span_of(in->at, (size_t)size);
    in->at += size;
    return true;
}

/* Whether an entry of TensorProto.external_data is whole and, if its key is `location`, has the table's name. */
static bool names_table(Span entry, Span name, size_t *locations)
{
    Field field;
    Span key = {entry.at, entry.at}, value = key;
    while (entry.at < entry.end) {
        if (!next_field(&entry, &field)) return false;
        if (field.is_bytes && field.number == 1) key = field.bytes;
        if (field.is_bytes && field.number == 2) value = field.bytes;
    }
    bool location = equals(key, "location");
    *locations += location;
    return !location || same(value, name);
}

/* Whether a TensorProto lies in the graph, or in one of the tables under its own name, which comes first or last. */
static bool is_inside(const edgerec *r, const Span tensor)
{
    enum { NAME = 8, EXTERNAL_DATA = 13, DATA_LOCATION = 14, EXTERNAL = 1 };
    Field field;
    Span name = {tensor.at, tensor.at};
    size_t names = 0, locations = 0, table = 0;
    bool external = false, good = true;
    for (Span in = tensor; in.at < in.end;) {
        if (!next_field(&in, &field)) return false;
        external |= field.number == EXTERNAL_DATA || (field.number == DATA_LOCATION && field.value == EXTERNAL);
        if (field.number == NAME && field.is_bytes) {
            name = field.bytes;
            names++;
        }
    }
    for (Span in = tensor; external && in.at < in.end && next_field(&in, &field);) {
        if (field.number == EXTERNAL_DATA) good = good && field.is_bytes && names_table(field.bytes, name, &locations);
    }
    while (external && table < r->n_tables && !equals(name, r->tables[table].name)) table++;
    return !external || (good && names == 1 && locations == 1 && table < r->n_tables);
}

typedef enum { A_MODEL, A_TRAINING, A_FUNCTION, A_GRAPH, A_NODE, AN_ATTRIBUTE, A_SPARSE, A_TENSOR } Message;

/* Whether every tensor of a message lies inside; the fields are those of onnx.proto that lead to one. */
static bool scan_graph(const edgerec *r, Span in, Message kind, int depth)
{
    static const struct {
        Message kind;
        uint64_t number;
        Message inner;
    } leads[] = {{A_MODEL, 7, A_GRAPH},          {A_MODEL, 20, A_TRAINING},    {A_MODEL, 25, A_FUNCTION},
                 {A_TRAINING, 1, A_GRAPH},       {A_TRAINING, 2, A_GRAPH},     {A_FUNCTION, 7, A_NODE},
                 {A_FUNCTION, 11, AN_ATTRIBUTE}, {A_GRAPH, 1, A_NODE},         {A_GRAPH, 5, A_TENSOR},
                 {A_GRAPH, 15, A_SPARSE},        {A_NODE, 5, AN_ATTRIBUTE},    {AN_ATTRIBUTE, 5, A_TENSOR},
                 {AN_ATTRIBUTE, 6, A_GRAPH},     {AN_ATTRIBUTE, 10, A_TENSOR}, {AN_ATTRIBUTE, 11, A_GRAPH},
                 {AN_ATTRIBUTE, 22, A_SPARSE},   {AN_ATTRIBUTE, 23, A_SPARSE}, {A_SPARSE, 1, A_TENSOR},
                 {A_SPARSE, 2, A_TENSOR}};
    Field field;
    if (depth > DEEPEST_GRAPH) return false;
    if (kind == A_TENSOR) return is_inside(r, in);
    while (in.at < in.end) {
        if (!next_field(&in, &field)) return false;
        for (size_t i = 0; field.is_bytes && i < COUNT(leads); i++) {
            bool follows = leads[i].kind == kind && leads[i].number == field.number;
            if (follows && !scan_graph(r, field.bytes, leads[i].inner, depth + 1)) return false;
        }
    }
    return true;
}

static const char *check_graph(const edgerec *r)
{
    const Member *graph = member(r, GRAPH);
    return graph && scan_graph(r, graph->data, A_MODEL, 0)
               ? NULL
               : refuse(r, "has a %s that is no ONNX file, or asks for a file that is not one of its tables", GRAPH);
}

/* ---- onnxruntime ---- */

typedef struct {
    const Slot *(ORT_CALL *GetApi)(uint32_t version);
    const char *(ORT_CALL *GetVersionString)(void);
} OrtApiBase;

typedef const OrtApiBase *(ORT_CALL *GetApiBase)(void);

/* Load the library, for good: onnxruntime has threads and static objects, and is not made to be unloaded. */
static GetApiBase load_library(const char *library)
{
    GetApiBase found = NULL;
#ifdef _WIN32
    HMODULE module = LoadLibraryA(library);
    FARPROC symbol = module ? GetProcAddress(module, "OrtGetApiBase") : NULL;
#else
    void *module = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    void *symbol = module ? dlsym(module, "OrtGetApiBase") : NULL;
#endif
    memcpy(&found, &symbol, sizeof found); /* ISO C converts no object pointer to a function's */
    return found;
}

/* Get the functions; an older library is refused by its version, before it is asked for what it does not have. */
static const char *load_ort(edgerec *r, const char *library)
{
    GetApiBase get = load_library(library);
    const OrtApiBase *base = get ? get() : NULL;
    int major = 0, minor = 0;
    if (!base) {
        return fail("%s cannot be loaded as onnxruntime; expected its shared library, 1.%d or later, for this machine: "
                    "install it",
                    library, ORT_API);
    }
    r->ort_version = base->GetVersionString();
    bool known = sscanf(r->ort_version, "%d.%d", &major, &minor) == 2 && major == 1 && minor >= ORT_API;
    const Slot *slots = known ? base->GetApi(ORT_API) : NULL;
    if (!slots)
        return fail("%s is onnxruntime %s; expected 1.%d or a later 1.x: install it", library, r->ort_version, ORT_API);
#define FILL(slot, type, name, arguments) r->ort.name = (type(ORT_CALL *) arguments)slots[slot];
    ORT_FUNCTIONS(FILL)
#undef FILL
    return NULL;
}

/* Turn onnxruntime's status into an error, or NULL. */
static const char *checked(const edgerec *r, OrtStatus *status)
{
    if (!status) return NULL;
    const char *error = fail("%s: %s cannot run on onnxruntime %s (%s); update onnxruntime, or export the bundle again",
                             r->path, GRAPH, r->ort_version, r->ort.GetErrorMessage(status));
    r->ort.ReleaseStatus(status);
    return error;
}

/* A tensor over memory that outlives it. onnxruntime takes the pointer for outputs too; inputs it only reads. */
static const char *tensor(const edgerec *r, const void *data, size_t size, const int64_t *shape, size_t rank, int type,
                          OrtValue **made)
{
    void *memory = (void *)(uintptr_t)data;
    return checked(r, r->ort.CreateTensorWithDataAsOrtValue(r->memory, memory, size, shape, rank, type, made));
}

static void release(const edgerec *r, OrtValue *value)
{
    if (value) r->ort.ReleaseValue(value);
}

/*
 * Hand the tables over where they lie: as external initializers, which stand for the files that the graph names, and
 * as initializers to share. As the first alone, onnxruntime copies them.
 */
static const char *give_tables(edgerec *r, OrtSessionOptions *options)
{
    const char *names[MOST_TABLES] = {NULL}, *error = NULL;
    for (size_t i = 0; !error && i < r->n_tables; i++) {
        const Table *one = &r->tables[i];
        names[i] = one->name;
        error = tensor(r, one->data.at, left(one->data), one->shape, one->rank, one->type, &r->values[i]);
        error = error ? error : checked(r, r->ort.AddInitializer(options, one->name, r->values[i]));
    }
    const OrtValue *const *values = (const OrtValue *const *)r->values;
    return error ? error : checked(r, r->ort.AddExternalInitializers(options, names, values, r->n_tables));
}

/* Set the options of runtime/engine.py, and open the graph. */
static const char *open_graph(edgerec *r, OrtSessionOptions *options, int threads)
{
    enum { SILENT = 4 }; /* errors arrive as statuses */
    const Ort *ort = &r->ort;
    Span graph = member(r, GRAPH)->data;
    const char *error = checked(r, ort->SetIntraOpNumThreads(options, threads));
    error = error ? error : checked(r, ort->SetInterOpNumThreads(options, 1));
    error = error ? error : checked(r, ort->SetSessionLogSeverityLevel(options, SILENT));
    error = error ? error : checked(r, ort->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"));
    error = error ? error : checked(r, ort->AddSessionConfigEntry(options, "session.inter_op.allow_spinning", "0"));
    error = error ? error : give_tables(r, options);
    return error ? error : checked(r, ort->CreateSessionFromArray(r->env, graph.at, left(graph), options, &r->session));
}

static const char *make_no_state(edgerec *r)
{
    size_t size = r->states * r->embedding_size;
    const int64_t shape[] = {1, (int64_t)r->states, (int64_t)r->embedding_size};
    r->zeros = calloc(size, sizeof *r->zeros);
    return r->zeros ? tensor(r, r->zeros, size * sizeof *r->zeros, shape, COUNT(shape), FLOATS, &r->no_state)
                    : fail("out of memory");
}

/* Open the graph, and give it all of its inputs once: a graph that takes or gives other tensors is told here. */
static const char *start_ort(edgerec *r, const char *library, int threads)
{
    enum { FATAL = 4, DEVICE_ALLOCATOR = 0, DEFAULT_MEMORY = 0 };
    OrtSessionOptions *options = NULL;
    const int64_t nobody = 0;
    int64_t item;
    float score;
    size_t found;
    const char *error = load_ort(r, library);
    error = error ? error : checked(r, r->ort.CreateEnv(FATAL, "edgerec", &r->env));
    error = error ? error : checked(r, r->ort.CreateCpuMemoryInfo(DEVICE_ALLOCATOR, DEFAULT_MEMORY, &r->memory));
    error = error ? error : checked(r, r->ort.CreateSessionOptions(&options));
    error = error ? error : open_graph(r, options, threads);
    if (options) r->ort.ReleaseSessionOptions(options);
    error = error ? error : make_no_state(r);
    return error ? error : edgerec_recommend(r, &nobody, 1, 1, EDGEREC_SEEN_LEFT_OUT, &item, &score, &found);
}

/* ---- items ---- */

static Span string_at(Strings strings, uint32_t place)
{
    return (Span){strings.text.at + strings.offsets[place], strings.text.at + strings.offsets[place + 1]};
}

/* As memcmp: the order of UTF-8's bytes, a prefix first. */
static int compare(Span a, Span b)
{
    size_t size = left(a) < left(b) ? left(a) : left(b);
    int found = memcmp(a.at, b.at, size);
    return found ? found : (left(a) > left(b)) - (left(a) < left(b));
}

typedef struct {
    Span id;
    uint32_t place;
} Id;

static int compare_ids(const void *a, const void *b)
{
    return compare(((const Id *)a)->id, ((const Id *)b)->id);
}

/* Sort the places of the ids; bundles of 65,536 items or more have them sorted. */
static const char *sort_ids(edgerec *r)
{
    size_t n = (size_t)r->n_items;
    if (r->order) return NULL;
    Id *ids = n <= SIZE_MAX / sizeof *ids ? malloc(n * sizeof *ids) : NULL;
    r->order = r->own_order = malloc(n * sizeof *r->own_order);
    if (!ids || !r->own_order) {
        free(ids);
        return fail("out of memory");
    }
    for (uint32_t place = 0; place < n; place++) {
        ids[place] = (Id){string_at(r->ids, place), place};
    }
    qsort(ids, n, sizeof *ids, compare_ids);
    for (size_t i = 0; i < n; i++) r->own_order[i] = ids[i].place;
    free(ids);
    return NULL;
}

int64_t edgerec_items(const edgerec *recommender)
{
    return recommender->n_items;
}

int64_t edgerec_item_row(const edgerec *recommender, const char *id)
{
    const edgerec *r = recommender;
    Span wanted = span_of((const uint8_t *)id, strlen(id));
    int64_t low = 0, high = r->n_items;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (compare(string_at(r->ids, r->order[middle]), wanted) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < r->n_items && same(string_at(r->ids, r->order[low]), wanted) ? (int64_t)r->order[low] + 1 : 0;
}

static edgerec_text text_of(const edgerec *r, Strings strings, int64_t row)
{
    if (row < 1 || row > r->n_items) return (edgerec_text){NULL, 0};
    Span found = string_at(strings, (uint32_t)(row - 1));
    return (edgerec_text){(const char *)found.at, left(found)};
}

edgerec_text edgerec_item_id(const edgerec *recommender, int64_t row)
{
    return text_of(recommender, recommender->ids, row);
}

edgerec_text edgerec_item_title(const edgerec *recommender, int64_t row)
{
    return text_of(recommender, recommender->titles, row);
}

const char *edgerec_rows(const edgerec *recommender, const char *const *ids, size_t n, bool skip_unknown, int64_t *rows,
                         size_t *known)
{
    size_t found = 0;
    const char *unknown = NULL;
    for (size_t i = 0; i < n; i++) {
        int64_t row = edgerec_item_row(recommender, ids[i]);
        if (row) {
            rows[found++] = row;
        } else if (!unknown) {
            unknown = ids[i];
        }
    }
    *known = unknown && !skip_unknown ? 0 : found;
    return unknown && !skip_unknown ? fail("%zu of %zu items are not in the catalogue: '%.100s' is the first; "
                                           "expected known ids: ask to skip unknown ones",
                                           n - found, n, unknown)
                                    : NULL;
}

/* ---- answers ---- */

enum { HISTORY, STATE, K, EXCLUDE, INPUTS, ITEMS = 0, SCORES, OUTPUTS };

typedef struct {
    const int64_t *history;
    int64_t n, k;
    bool exclude; /* the history's items */
    OrtValue *inputs[INPUTS];
    OrtValue *outputs[OUTPUTS];
} Request;

static const char *run(const edgerec *r, Request *request)
{
    static const char *const inputs[INPUTS] = {"history", "state", "k", "exclude"};
    static const char *const outputs[OUTPUTS] = {"items", "scores"};
    const int64_t shape[] = {1, request->n}, one[] = {1};
    size_t size = (size_t)request->n * sizeof *request->history;
    OrtValue **values = request->inputs;
    const char *error = tensor(r, request->history, size, shape, COUNT(shape), INT64S, &values[HISTORY]);
    error = error ? error : tensor(r, &request->k, sizeof request->k, one, COUNT(one), INT64S, &values[K]);
    if (!error && request->exclude) {
        error = tensor(r, request->history, size, shape, COUNT(shape), INT64S, &values[EXCLUDE]);
    }
    const OrtValue *const given[INPUTS] = {values[HISTORY], r->no_state, values[K], values[EXCLUDE]};
    size_t n_inputs = request->exclude ? INPUTS : EXCLUDE;
    return error
               ? error
               : checked(r, r->ort.Run(r->session, NULL, inputs, given, n_inputs, outputs, OUTPUTS, request->outputs));
}

/* The numbers of an output, and how many they are, if they have the type. */
static const char *output(const edgerec *r, const Request *request, size_t place, int type, const void **data,
                          size_t *count)
{
    OrtShape *shape = NULL;
    void *memory = NULL;
    int found = 0;
    const char *error = checked(r, r->ort.GetTensorTypeAndShape(request->outputs[place], &shape));
    error = error ? error : checked(r, r->ort.GetTensorElementType(shape, &found));
    error = error ? error : checked(r, r->ort.GetTensorShapeElementCount(shape, count));
    error = error ? error : checked(r, r->ort.GetTensorMutableData(request->outputs[place], &memory));
    if (shape) r->ort.ReleaseTensorTypeAndShapeInfo(shape);
    *data = memory;
    return error || found == type ? error : refuse(r, "has a %s with outputs of another type", GRAPH);
}

/* Put an entry into its place among those before: the graph's order is kept but for ties, which go to the lower row. */
static void insert(int64_t *items, float *scores, size_t place, int64_t item, float score)
{
    while (place > 0 && (scores[place - 1] < score || (scores[place - 1] == score && items[place - 1] > item))) {
        items[place] = items[place - 1];
        scores[place] = scores[place - 1];
        place--;
    }
    items[place] = item;
    scores[place] = score;
}

/* Copy an answer; places where nothing is left to return say -1. */
static const char *take(const edgerec *r, const Request *request, int64_t *items, float *scores, size_t *found)
{
    const void *rows = NULL, *values = NULL;
    size_t n_rows = 0, n_values = 0;
    const char *error = output(r, request, ITEMS, INT64S, &rows, &n_rows);
    error = error ? error : output(r, request, SCORES, FLOATS, &values, &n_values);
    if (!error && (n_rows != n_values || n_rows > (size_t)request->k)) {
        error = refuse(r, "has a %s that answers %zu items with %zu scores", GRAPH, n_rows, n_values);
    }
    size_t kept = 0;
    for (size_t i = 0; !error && i < n_rows; i++) {
        int64_t row = ((const int64_t *)rows)[i];
        if (row == 0 || row > r->n_items) {
            error = refuse(r, "has a %s that answers with row %lld", GRAPH, (long long)row);
        } else if (row > 0) {
            insert(items, scores, kept++, row, ((const float *)values)[i]);
        }
    }
    *found = error ? 0 : kept;
    return error;
}

const char *edgerec_recommend(const edgerec *recommender, const int64_t *history, size_t n, size_t k, edgerec_seen seen,
                              int64_t *items, float *scores, size_t *found)
{
    static const int64_t nobody = 0;
    const edgerec *r = recommender;
    *found = 0;
    if (k < 1 || n > INT32_MAX) {
        return fail("got k = %zu and %zu events; expected at least 1 item, and fewer events than 2^31", k, n);
    }
    for (size_t i = 0; i < n; i++) {
        if (history[i] < 0 || history[i] > r->n_items) {
            return fail("got row %lld in a history; expected rows of this catalogue, 0 to %lld", (long long)history[i],
                        (long long)r->n_items);
        }
    }
    Request request = {
        .history = n ? history : &nobody,
        .n = n ? (int64_t)n : 1,
        .k = k > (size_t)r->n_items ? r->n_items + 1 : (int64_t)k,
        .exclude = n && (seen == EDGEREC_SEEN_AS_EXPORTED ? r->mask_seen : seen == EDGEREC_SEEN_LEFT_OUT),
    };
    const char *error = run(r, &request);
    error = error ? error : take(r, &request, items, scores, found);
    for (size_t i = 0; i < INPUTS; i++) release(r, request.inputs[i]);
    for (size_t i = 0; i < OUTPUTS; i++) release(r, request.outputs[i]);
    return error;
}

/* ---- golden requests, as runtime/verify.py ---- */

typedef struct {
    int64_t *history;
    size_t events, n, k, found;
    bool exclude_seen;
    int64_t items[MOST_GOLDEN], got[MOST_GOLDEN];
    double expected[MOST_GOLDEN];
    float scores[MOST_GOLDEN];
} Golden;

static bool read_rows(const edgerec *r, Span array, int64_t *rows)
{
    uint64_t row;
    for (Span one; json_next(&array, NULL, &one); *rows++ = (int64_t)row) {
        if (!json_count(one, 0, (uint64_t)r->n_items, &row)) return false;
    }
    return true;
}

/* Fill a golden request; false where it is none. */
static bool read_golden(const edgerec *r, Span request, Golden *made)
{
    Span history, items, scores, value;
    uint64_t k = 0;
    bool whole = json_find(request, "history", &history) && json_find(request, "items", &items) &&
                 json_find(request, "scores", &scores) && json_find(request, "k", &value) &&
                 json_count(value, 1, MOST_GOLDEN, &k) && json_find(request, "exclude_seen", &value) &&
                 json_flag(value, &made->exclude_seen);
    if (!whole) return false;
    made->events = json_length(history);
    made->n = json_length(items);
    made->k = (size_t)k;
    made->history = calloc(made->events + 1, sizeof *made->history); /* never of size 0 */
    whole = made->n <= made->k && json_length(scores) == made->n && made->history &&
            read_rows(r, history, made->history) && read_rows(r, items, made->items);
    for (size_t i = 0; whole && json_next(&scores, NULL, &value); i++) whole = json_real(value, &made->expected[i]);
    return whole;
}

static size_t place_of(const int64_t *rows, size_t n, int64_t row)
{
    size_t place = 0;
    while (place < n && rows[place] != row) place++;
    return place;
}

/*
 * Whether an answer is the golden one: two items may change places only where they scored closer than the tolerance,
 * and an item from outside may only stand in for the last.
 */
static bool agrees(const Golden *golden, double tolerance, double *difference)
{
    const size_t n = golden->n;
    double last = n ? golden->expected[n - 1] : 0;
    for (size_t i = 0; i < n && golden->found == n; i++) {
        double score = (double)golden->scores[i], expected = golden->expected[i];
        size_t place = place_of(golden->items, n, golden->got[i]);
        double own = place < n ? golden->expected[place] : last;
        bool missing = place_of(golden->got, n, golden->items[i]) == n && expected - last > tolerance;
        bool twice = place_of(golden->got, n, golden->got[i]) < i;
        bool close = fabs(score - own) <= tolerance && fabs(own - expected) <= tolerance;
        if (!close || missing || twice) return false;
        if (fabs(score - expected) > *difference) *difference = fabs(score - expected);
    }
    return golden->found == n;
}

static const char *no_goldens(const edgerec *r)
{
    return refuse(r, "has a %s without usable golden requests", GOLDENS);
}

static const char *replay(const edgerec *r, Span request, double tolerance, size_t number, double *difference)
{
    Golden golden = {0};
    const char *error = read_golden(r, request, &golden) ? NULL : no_goldens(r);
    edgerec_seen seen = golden.exclude_seen ? EDGEREC_SEEN_LEFT_OUT : EDGEREC_SEEN_RETURNED;
    if (!error) {
        error = edgerec_recommend(r, golden.history, golden.events, golden.k, seen, golden.got, golden.scores,
                                  &golden.found);
    }
    if (!error && !agrees(&golden, tolerance, difference)) {
        error = fail("%s: golden request %zu is answered otherwise here than where it was exported; do not use it on "
                     "this device: update onnxruntime, or export for this target",
                     r->path, number);
    }
    free(golden.history);
    return error;
}

const char *edgerec_verify(const edgerec *recommender, size_t *requests, double *difference)
{
    const edgerec *r = recommender;
    const Member *goldens = member(r, GOLDENS);
    Span list, value, request;
    double tolerance = 0;
    const char *error = NULL;
    *requests = 0;
    *difference = 0;
    bool whole = goldens && is_json(goldens->data) && json_find(goldens->data, "requests", &list) &&
                 json_find(goldens->data, "tolerance", &value) && json_real(value, &tolerance) && tolerance >= 0;
    while (whole && !error && json_next(&list, NULL, &request)) {
        error = replay(r, request, tolerance, *requests, difference);
        ++*requests;
    }
    return error || *requests ? error : no_goldens(r);
}

/* ---- opening and closing ---- */

#ifdef _WIN32

static bool map_file(const char *path, Span *file)
{
    FILE *stream = fopen(path, "rb");
    int64_t size = stream && _fseeki64(stream, 0, SEEK_END) == 0 ? _ftelli64(stream) : -1;
    uint8_t *bytes = size > 0 && (uint64_t)size <= SIZE_MAX ? malloc((size_t)size) : NULL;
    bool whole = bytes && _fseeki64(stream, 0, SEEK_SET) == 0 && fread(bytes, (size_t)size, 1, stream) == 1;
    if (stream) fclose(stream);
    if (!whole) {
        free(bytes);
        return false;
    }
    *file = span_of(bytes, (size_t)size);
    return true;
}

static void unmap_file(Span file)
{
    free((void *)(uintptr_t)file.at);
}

static void release_pages(Span file)
{
    (void)file;
}

#else

static bool map_file(const char *path, Span *file)
{
    struct stat status;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    bool usable = descriptor >= 0 && fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0 &&
                  (uint64_t)status.st_size <= SIZE_MAX;
    void *bytes = usable ? mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0) : MAP_FAILED;
    if (descriptor >= 0) close(descriptor);
    if (bytes == MAP_FAILED) return false;
    *file = span_of(bytes, (size_t)status.st_size);
    return true;
}

static void unmap_file(Span file)
{
    if (file.at) munmap((void *)(uintptr_t)file.at, left(file));
}

/* Give the memory of what was read so far back to the system; the next use reads it from the file again. */
static void release_pages(Span file)
{
    madvise((void *)(uintptr_t)file.at, left(file), MADV_DONTNEED);
}

#endif

/* Everything but onnxruntime. */
static const char *read_bundle(edgerec *r, const char *path)
{
    size_t size = strlen(path) + 1;
    r->path = malloc(size);
    if (!r->path) return fail("out of memory");
    memcpy(r->path, path, size);
    const char *error = map_file(path, &r->file) ? NULL : refuse(r, "cannot be read");
    error = error ? error : read_zip(r);
    error = error ? error : check_manifest(r);
    error = error ? error : read_contents(r);
    error = error ? error : check_graph(r);
    error = error ? error : sort_ids(r);
    return error;
}

const char *edgerec_open(const char *path, const char *ort_library, int threads, edgerec **opened)
{
    *opened = NULL;
    if (threads < 1) return fail("got threads = %d; expected a whole number of at least 1", threads);
    edgerec *r = calloc(1, sizeof *r);
    const char *error = r ? read_bundle(r, path) : fail("out of memory");
    error = error ? error : start_ort(r, ort_library, threads);
    if (error) {
        edgerec_close(r);
        return error;
    }
    release_pages(r->file); /* what was hashed, and what onnxruntime packed */
    *opened = r;
    return NULL;
}

void edgerec_close(edgerec *recommender)
{
    edgerec *r = recommender;
    if (!r) return;
    if (r->session) r->ort.ReleaseSession(r->session);
    for (size_t i = 0; i < MOST_TABLES; i++) release(r, r->values[i]);
    release(r, r->no_state);
    if (r->memory) r->ort.ReleaseMemoryInfo(r->memory);
    if (r->env) r->ort.ReleaseEnv(r->env);
    free(r->zeros);
    free(r->own_order);
    unmap_file(r->file);
    free(r->path);
    free(r);
}
