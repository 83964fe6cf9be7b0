/*
 * The ten best items after a history: example BUNDLE ONNXRUNTIME_LIBRARY [ITEM_ID ...], oldest first.
 *
 *     cc -std=c11 -O2 -o example example.c edgerec.c -ldl
 */
#include "edgerec.h"

#include <stdio.h>
#include <stdlib.h>

enum { K = 10 };

static const char *recommend(const edgerec *recommender, const char *const *ids, size_t n)
{
    int64_t *history = malloc((n + 1) * sizeof *history); /* never of size 0 */
    int64_t items[K];
    float scores[K];
    size_t events = 0, found = 0;

    const char *error = history ? edgerec_rows(recommender, ids, n, false, history, &events) : "out of memory";
    if (!error) {
        error = edgerec_recommend(recommender, history, events, K, EDGEREC_SEEN_AS_EXPORTED, items, scores, &found);
    }
    for (size_t place = 0; !error && place < found; place++) {
        edgerec_text id = edgerec_item_id(recommender, items[place]);
        edgerec_text title = edgerec_item_title(recommender, items[place]);
        printf("%.4f\t%.*s\t%.*s\n", (double)scores[place], (int)id.size, id.bytes, (int)title.size, title.bytes);
    }
    free(history);
    return error;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s BUNDLE ONNXRUNTIME_LIBRARY [ITEM_ID ...]\n", argv[0]);
        return 2;
    }
    edgerec *recommender = NULL;
    const char *error = edgerec_open(argv[1], argv[2], 1, &recommender);
    if (!error) {
        error = recommend(recommender, (const char *const *)(argv + 3), (size_t)argc - 3);
    }
    if (error) {
        fprintf(stderr, "%s\n", error);
    }
    edgerec_close(recommender);
    return error ? 1 : 0;
}
