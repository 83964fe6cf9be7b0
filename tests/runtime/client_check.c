/*
 * Lets test_c_client.py ask the whole of the client, under sanitizers where the compiler has them. Lines of stdin are a
 * word and a file: `use` asks everything of a bundle, `read` does all but give its graph to onnxruntime, `json` and
 * `hash` try the parts that have an answer known from Python. A line of stdout answers each.
 */
#include "edgerec.c"

static const char *ask(const edgerec *r, const char *id, int64_t row, size_t k)
{
    const char *const ids[] = {id, "nobody", id};
    int64_t history[COUNT(ids) + 1] = {0}, *items = calloc(k, sizeof *items);
    float *scores = calloc(k, sizeof *scores);
    size_t known = 0, found = 0;
    const char *error = edgerec_rows(r, ids, COUNT(ids), true, history, &known);
    history[known++] = row;
    error = error ? error : edgerec_recommend(r, history, known, k, EDGEREC_SEEN_AS_EXPORTED, items, scores, &found);
    error = error ? error : edgerec_recommend(r, NULL, 0, k, EDGEREC_SEEN_LEFT_OUT, items, scores, &found);
    for (size_t i = 0; !error && i < found; i++) error = edgerec_item_id(r, items[i]).bytes ? NULL : "an item of no id";
    free(items);
    free(scores);
    return error;
}

/* Read every id and title to its last byte, and find the ids again; returns how many were found. */
static int64_t look_up(const edgerec *r)
{
    int64_t known = 0;
    for (int64_t row = 1; row <= edgerec_items(r); row++) {
        edgerec_text id = edgerec_item_id(r, row), title = edgerec_item_title(r, row);
        char *copy = calloc(id.size + title.size + 1, 1);
        memcpy(copy, title.bytes, title.size);
        memcpy(copy, id.bytes, id.size);
        copy[id.size] = 0;
        known += edgerec_item_row(r, copy) == row;
        free(copy);
    }
    return known;
}

static const char *use(const char *path, const char *library)
{
    edgerec *r = NULL;
    const char *error = edgerec_open(path, library, 1, &r);
    size_t requests = 0;
    double difference = 0;
    if (!error) {
        int64_t n = edgerec_items(r), known = look_up(r);
        char *id = calloc(r->ids.offsets[1] + 1, 1);
        memcpy(id, edgerec_item_id(r, 1).bytes, r->ids.offsets[1]);
        error = ask(r, id, n, (size_t)n + 5);
        error = error ? error : ask(r, id, n, 1);
        error = error ? error : edgerec_verify(r, &requests, &difference);
        if (!error) printf("ok %lld %zu ", (long long)known, requests);
        free(id);
    }
    edgerec_close(r);
    return error;
}

static const char *read_only(const char *path)
{
    edgerec *r = calloc(1, sizeof *r);
    const char *error = read_bundle(r, path);
    if (!error) printf("ok %lld ", (long long)look_up(r));
    edgerec_close(r);
    return error;
}

static void part(const char *word, const char *path)
{
    Span file = {NULL, NULL};
    uint8_t digest[DIGEST];
    if (!map_file(path, &file)) return;
    if (*word == 'j') printf("%s", is_json(file) ? "ok" : "no");
    sha256(file, digest);
    for (size_t i = 0; *word == 'h' && i < DIGEST; i++) printf("%02x", digest[i]);
    unmap_file(file);
}

int main(int argc, char **argv)
{
    char word[8], path[4096];
    while (argc == 2 && scanf("%7s %4095s", word, path) == 2) {
        const char *error = *word == 'u' ? use(path, argv[1]) : *word == 'r' ? read_only(path) : NULL;
        part(word, path);
        printf("%s\n", error ? error : "");
    }
    return 0;
}
