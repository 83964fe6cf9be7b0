/*
 * edgerec in C: opens an unmodified .edgerec bundle and answers the best items after a history.
 *
 * One source file over the C API of ONNX Runtime 1.17 or later, whose shared library is loaded when a bundle is opened;
 * no header of it is needed. Add edgerec.c to a C11 build (link with -ldl where dlopen lives apart). From C++, include
 * this header. POSIX and Windows, 32 and 64 bits, little-endian; bundles below 4 GiB.
 *
 * What it answers is what edgerec.runtime answers in Python: the same graph over the same tables. Out of scope: text
 * (there is no tokenizer, so neither search nor new items), sessions, deltas and overlays, and signatures: every
 * member's sha256 is checked, but who made the file is not (docs/security.md).
 *
 * Rows. An item has a row, 1 to edgerec_items(), in the order of the catalogue; row 0 is padding.
 *
 * Errors. Functions that can fail return NULL, or one line that says what was got, what was expected and what to do.
 * The line belongs to the library: it is valid until the next call in the same thread, and must not be freed. After an
 * error, nothing was written to the caller's arrays that counts, and nothing needs to be released.
 *
 * Threads. An open recommender does not change: any number of threads may use one at once, until it is closed.
 */
#ifndef EDGEREC_H
#define EDGEREC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An open bundle. */
typedef struct edgerec edgerec;

/* UTF-8 inside the bundle, valid until it is closed. It does not end with a 0: print it with "%.*s". */
typedef struct {
    const char *bytes; /* NULL where there is no such item */
    size_t size;       /* bytes */
} edgerec_text;

/* What becomes of the items that a history holds. */
typedef enum {
    EDGEREC_SEEN_AS_EXPORTED, /* left out, unless the bundle was made from a log of repeat purchases */
    EDGEREC_SEEN_LEFT_OUT,
    EDGEREC_SEEN_RETURNED
} edgerec_seen;

/*
 * Open a bundle: check all of it, map it, and load its graph. The tables are used where they lie in the file; ONNX
 * Runtime packs one of them once more. Replace the file by renaming: one that is written to while it is open can crash
 * the process.
 *
 * path         the file; on Windows in the code page of the process.
 * ort_library  onnxruntime's shared library, as dlopen or LoadLibrary take it. It stays loaded.
 * threads      for one answer, at least 1; small catalogues are fastest with 1.
 * opened       receives what edgerec_close must be given; NULL after an error.
 */
const char *edgerec_open(const char *path, const char *ort_library, int threads, edgerec **opened);

/* Close a bundle, when no thread uses it any more. NULL is allowed. */
void edgerec_close(edgerec *recommender);

/* The number of items. */
int64_t edgerec_items(const edgerec *recommender);

/* The row of an item's id, which ends with a 0; or 0 where the catalogue has no such item. */
int64_t edgerec_item_row(const edgerec *recommender, const char *id);

/* An item's id and title. */
edgerec_text edgerec_item_id(const edgerec *recommender, int64_t row);
edgerec_text edgerec_item_title(const edgerec *recommender, int64_t row);

/*
 * Turn ids into rows, in their order.
 *
 * ids, n        the ids.
 * skip_unknown  leave out ids that the catalogue does not have; otherwise they are an error.
 * rows          room for n.
 * known         receives how many rows were written.
 */
const char *edgerec_rows(const edgerec *recommender, const char *const *ids, size_t n, bool skip_unknown, int64_t *rows,
                         size_t *known);

/*
 * Answer the best items after a history, best first; of equal scores, the lower row first.
 *
 * history, n  rows, oldest first, of any number; 0 is passed over. Without events, the answer is the stored popularity.
 * k           how many items, at least 1.
 * seen        what becomes of the history's own items.
 * items       room for k rows.
 * scores      room for k scores, which compare within one answer only.
 * found       receives how many there are: fewer than k where no more can be returned.
 */
const char *edgerec_recommend(const edgerec *recommender, const int64_t *history, size_t n, size_t k, edgerec_seen seen,
                              int64_t *items, float *scores, size_t *found);

/*
 * Answer the bundle's golden requests here, and compare ranks and scores with the exporter's, as `edgerec verify` does.
 * Golden texts are passed over. After an error, do not use the bundle on this device.
 *
 * requests    receives how many were answered.
 * difference  receives the largest difference of a score.
 */
const char *edgerec_verify(const edgerec *recommender, size_t *requests, double *difference);

#ifdef __cplusplus
}
#endif

#endif
