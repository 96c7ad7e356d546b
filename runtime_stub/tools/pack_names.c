/* Packs the names of system calls for the runtime. Runs where the runtime is built.
 *
 * In: lines "number name" on standard input, by number (syscall_names.txt). Out: a header on standard output: one string of symbols and a table of
 * pairs of symbols, about 60 % of what the names take (byte pair encoding: P. Gage, A New Algorithm for Data Compression, 1994).
 *
 * A symbol is a character (0x30 to 0x7f), or a pair: its index is the symbol - 128, modulo 256. A name begins with a capital, of `_` that is DEL,
 * and `@` stands where a number has no name; so that its end is seen, pairs that begin like that are the last ones, from NAMES_FIRST_START on. There is one
 * gap, where no number has a name: it has no symbols.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 4096 /* symbols */
#define MOST_PAIRS 176 /* 128 to 255, and 0 to 47 */
#define FEWEST 4 /* occurrences that make a pair worth its two bytes */
#define GAP 16   /* numbers without a name, in a row */
#define PAIR 256 /* from here on a symbol is a pair, while this runs */

static int text[MOST], length, pairs[MOST_PAIRS][2], count, place[MOST_PAIRS];

static int begins_name(int symbol) {
    while (symbol >= PAIR)
        symbol = pairs[symbol - PAIR][0];
    return (symbol >= '@' && symbol <= 'Z') || symbol == 0x7f;
}

static void append(int symbol) {
    if (length == MOST)
        exit(fprintf(stderr, "pack_names: more than %d characters\n", MOST) > 0);
    text[length++] = symbol;
}

/* -> the end of the gap. */
static int read_names(int *gap) {
    char line[128], name[64];
    int next = 0, number, end = 0;
    while (fgets(line, sizeof line, stdin)) {
        if (*line == '#')
            continue;
        if (sscanf(line, "%d %63s", &number, name) != 2 || number < next || (number - next >= GAP && end))
            exit(fprintf(stderr, "pack_names: not expected: %s", line) > 0);
        if (number - next >= GAP) {
            *gap = next;
            next = end = number;
        }
        for (; next < number; next++)
            append('@');
        append(*name ^ 0x20);
        for (const char *c = name + 1; *c; c++)
            append(*c);
        next++;
    }
    return end;
}

/* Of what stands side by side in names, what does so most often. 0: nothing worth it. */
static int most_frequent(int pair[2]) {
    static int seen[PAIR + MOST_PAIRS][PAIR + MOST_PAIRS];
    int best = 0;
    memset(seen, 0, sizeof seen);
    for (int i = 0; i + 1 < length; i++) {
        if (begins_name(text[i + 1]) || ++seen[text[i]][text[i + 1]] <= best)
            continue;
        best = seen[text[i]][text[i + 1]];
        pair[0] = text[i];
        pair[1] = text[i + 1];
    }
    return best >= FEWEST;
}

static void replace(const int pair[2], int by) {
    int to = 0;
    for (int i = 0; i < length; i++) {
        int is_pair = i + 1 < length && text[i] == pair[0] && text[i + 1] == pair[1];
        text[to++] = is_pair ? by : text[i];
        i += is_pair;
    }
    length = to;
}

static int coded(int symbol) { return symbol < PAIR ? symbol : (place[symbol - PAIR] + 128) & 255; }

int main(void) {
    int gap = 0, end = read_names(&gap), first_start = 0;
    for (; count < MOST_PAIRS && most_frequent(pairs[count]); count++)
        replace(pairs[count], PAIR + count);
    for (int starts = 0, at = 0; starts < 2; starts++) {
        for (int i = 0; i < count; i++)
            if (begins_name(PAIR + i) == starts)
                place[i] = at++;
        if (!starts)
            first_start = at;
    }
    printf("/* By tools/pack_names.c, which says what it is. */\n#define NAMES_GAP %d\n#define NAMES_GAP_END %d\n", gap, end);
    printf("#define NAMES_PAIRS %d\n#define NAMES_FIRST_START %d\nstatic const u8 name_pairs[][2] = {", count, first_start);
    for (int at = 0; at < count; at++)
        for (int i = 0; i < count; i++)
            if (place[i] == at)
                printf("%s{%d, %d},", at % 8 ? " " : "\n    ", coded(pairs[i][0]), coded(pairs[i][1]));
    printf("\n};\nstatic const u8 syscall_names[] = {");
    for (int i = 0; i < length; i++)
        printf("%s%d,", i % 16 ? " " : "\n    ", coded(text[i]));
    printf("\n};\n");
    return 0;
}
