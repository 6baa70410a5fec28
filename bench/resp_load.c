/* The load of `python -m bench clients` on a RESP server: connections that send, wait for the
 * replies, and send again.
 *
 * One program for every server that speaks RESP, and in C: on a machine whose cores the servers
 * need, a load generator that takes half of one would decide the comparison.
 *
 *   resp_load PORT WORK CONNECTIONS PIPELINE KEYS VALUE_BYTES WARMUP_S SECONDS SEED [SETUP...]
 *
 * WORK is "set", "set-wait" (SET and WAIT 1 in one write: an operation has two replies) or "get".
 * Each SETUP is one inline command that every connection sends first. Keys are chosen at random;
 * each connection writes keys of its own, so its last value stays. What is counted came in after
 * WARMUP_S and before WARMUP_S + SECONDS; what is under way then is still waited for.
 *
 * One JSON object comes out: operations (those counted), sent (all), p50_us, p99_us, max_us (of a
 * whole pipeline), errors, error (the first one's text), last (each connection's last key, and the
 * beginning of its value).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, LINE_MAX_BYTES = 512, HEAD_BYTES = 40, LAST_REPLIES_S = 30 };
typedef enum { SET, SET_WAIT, GET } Work;

typedef struct {
    int fd;
    int missing;       /* replies of the pipeline under way */
    char *in;          /* received, not yet looked at */
    size_t in_bytes;
    uint64_t sent_ns;
    uint64_t number;   /* writes so far */
    uint64_t last_key;
} Connection;

static Work work;
static int connections, pipeline;
static uint64_t keys, state;
static size_t value_bytes, in_max, out_max;
static char *value, *out;
static uint64_t operations, sent, errors;
static char error_text[LINE_MAX_BYTES];
static uint32_t *times_us;
static size_t times, times_max;
static uint64_t begin_ns, end_ns;

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes);
    if (memory == NULL) die("out of memory");
    return memory;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t chosen(void) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717u;
}

static void note_error(const char *text, size_t bytes) {
    if (errors++ == 0) snprintf(error_text, sizeof error_text, "%.*s", (int)bytes, text);
}

static int connect_to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("no connection to port %d: %s", port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void send_all(int fd, const char *data, size_t bytes) {
    while (bytes > 0) {
        ssize_t taken = send(fd, data, bytes, MSG_NOSIGNAL);
        if (taken < 0 && errno == EINTR) continue;
        if (taken < 0) die("sending failed: %s", strerror(errno));
        data += taken;
        bytes -= (size_t)taken;
    }
}

static void set_up(int fd, const char *command) {
    char line[LINE_MAX_BYTES];
    size_t have = 0;
    send_all(fd, command, strlen(command));
    send_all(fd, "\r\n", 2);
    while (have == 0 || line[have - 1] != '\n') {
        ssize_t got = recv(fd, line + have, sizeof line - 1 - have, 0);
        if (got <= 0) die("connection lost in the set-up");
        have += (size_t)got;
    }
    line[have] = 0;
    if (line[0] == '-') die("set-up refused: %s", line);
}

static void send_pipeline(Connection *connection, int index) {
    char *end = out;
    for (int each = 0; each < pipeline; each++) {
        uint64_t key = chosen() % keys;
        if (work == GET) {
            end += sprintf(end, "*2\r\n$3\r\nGET\r\n$16\r\nkey:%012llu\r\n",
                           (unsigned long long)key);
            continue;
        }
        key = key - key % (uint64_t)connections + (uint64_t)index;
        if (key >= keys) key = (uint64_t)index;
        memset(value, '.', HEAD_BYTES);
        value[sprintf(value, "%d %llu ", index, (unsigned long long)++connection->number)] = '.';
        connection->last_key = key;
        end += sprintf(end, "*3\r\n$3\r\nSET\r\n$16\r\nkey:%012llu\r\n$%zu\r\n",
                       (unsigned long long)key, value_bytes);
        memcpy(end, value, value_bytes);
        end += value_bytes;
        end += sprintf(end, work == SET ? "\r\n" : "\r\n*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$5\r\n10000\r\n");
    }
    connection->missing = work == SET_WAIT ? 2 * pipeline : pipeline;
    sent += (uint64_t)pipeline;
    connection->sent_ns = now_ns();
    send_all(connection->fd, out, (size_t)(end - out));
}

/* Returns the length of the reply at `data`, 0 when it is not whole yet. */
static size_t reply_bytes(const char *data, size_t have) {
    const char *newline = memchr(data, '\n', have);
    if (newline == NULL) return 0;
    size_t line = (size_t)(newline - data) + 1;
    if (data[0] != '$' || data[1] == '-') return line;
    size_t whole = line + (size_t)strtoul(data + 1, NULL, 10) + 2;
    return whole <= have ? whole : 0;
}

static void check_reply(const Connection *connection, const char *data, size_t bytes) {
    int second = work == SET_WAIT && connection->missing % 2 == 1;
    int good = work == GET ? data[0] == '$' && strtoul(data + 1, NULL, 10) == value_bytes
               : second    ? data[0] == ':' && data[1] != '0'
                           : memcmp(data, "+OK\r\n", 5 < bytes ? 5 : bytes) == 0;
    const char *line_end = memchr(data, '\r', bytes);
    if (!good) note_error(data, (size_t)(line_end - data));
}

static void note_pipeline(const Connection *connection) {
    uint64_t now = now_ns();
    if (now < begin_ns || now >= end_ns) return;
    operations += (uint64_t)pipeline;
    if (times == times_max) {
        times_max *= 2;
        times_us = realloc(times_us, times_max * sizeof *times_us);
        if (times_us == NULL) die("out of memory");
    }
    times_us[times++] = (uint32_t)((now - connection->sent_ns) / 1000);
}

static void receive(Connection *connection) {
    char *in = connection->in;
    ssize_t got = recv(connection->fd, in + connection->in_bytes, in_max - connection->in_bytes,
                       MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) die("the server closed a connection");
    size_t have = connection->in_bytes + (size_t)got, at = 0, bytes;
    while (at < have && (bytes = reply_bytes(in + at, have - at)) > 0) {
        if (connection->missing == 0) die("a reply that nobody asked for");
        check_reply(connection, in + at, bytes);
        connection->missing--;
        at += bytes;
    }
    memmove(in, in + at, have - at);
    connection->in_bytes = have - at;
    if (connection->in_bytes == in_max) die("a reply that is too long");
}

static int by_size(const void *one, const void *other) {
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

static uint32_t percentile(unsigned hundredths) {
    return times == 0 ? 0 : times_us[(times - 1) * hundredths / 100];
}

static void print_text(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        putchar((unsigned char)*text < ' ' ? ' ' : *text);
    }
    putchar('"');
}

static void report(const Connection *all) {
    qsort(times_us, times, sizeof *times_us, by_size);
    printf("{\"operations\":%llu,\"sent\":%llu,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u,",
           (unsigned long long)operations, (unsigned long long)sent, percentile(50),
           percentile(99), percentile(100));
    printf("\"errors\":%llu,\"error\":", (unsigned long long)errors);
    print_text(error_text);
    printf(",\"last\":[");
    for (int index = 0, printed = 0; index < connections; index++)
        if (all[index].number > 0)
            printf("%s[\"key:%012llu\",\"%d %llu \"]", printed++ ? "," : "",
                   (unsigned long long)all[index].last_key, index,
                   (unsigned long long)all[index].number);
    printf("]}\n");
}

static void run(Connection *all, int poll_fd) {
    struct epoll_event events[EVENTS_MAX];
    int open = connections;
    for (int index = 0; index < connections; index++) send_pipeline(&all[index], index);
    while (open > 0) {
        int ready = epoll_wait(poll_fd, events, EVENTS_MAX, LAST_REPLIES_S * 1000);
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) die("no reply within %d s", LAST_REPLIES_S);
        for (int each = 0; each < ready; each++) {
            int index = (int)events[each].data.u32;
            Connection *connection = &all[index];
            receive(connection);
            if (connection->missing > 0) continue;
            note_pipeline(connection);
            if (now_ns() < end_ns)
                send_pipeline(connection, index);
            else
                open--;
        }
    }
}

int main(int count, char **words) {
    if (count < 10) die("usage: see the beginning of resp_load.c");
    int port = atoi(words[1]);
    work = strcmp(words[2], "get") == 0 ? GET : strcmp(words[2], "set") == 0 ? SET : SET_WAIT;
    connections = atoi(words[3]);
    pipeline = atoi(words[4]);
    keys = strtoull(words[5], NULL, 10);
    value_bytes = strtoul(words[6], NULL, 10);
    double warmup_s = atof(words[7]), seconds = atof(words[8]);
    state = strtoull(words[9], NULL, 10) * 2 + 1;
    if (connections < 1 || pipeline < 1 || keys < (uint64_t)connections || value_bytes < HEAD_BYTES)
        die("at least one connection, as many keys as connections, and values of 40 bytes");
    for (int each = 0; each < 16; each++) chosen(); /* a small seed has few bits set at first */
    in_max = (size_t)pipeline * (value_bytes + 64) + LINE_MAX_BYTES;
    out_max = (size_t)pipeline * (value_bytes + 128);
    out = allocate(out_max);
    value = allocate(value_bytes + 1);
    memset(value, '.', value_bytes);
    times_max = 1 << 16;
    times_us = allocate(times_max * sizeof *times_us);
    Connection *all = calloc((size_t)connections, sizeof *all);
    int poll_fd = epoll_create1(0);
    if (all == NULL || poll_fd < 0) die("out of memory or descriptors");
    for (int index = 0; index < connections; index++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)index};
        all[index].fd = connect_to(port);
        all[index].in = allocate(in_max);
        for (int each = 10; each < count; each++) set_up(all[index].fd, words[each]);
        if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, all[index].fd, &event) != 0)
            die("epoll: %s", strerror(errno));
    }
    begin_ns = now_ns() + (uint64_t)(warmup_s * 1e9);
    end_ns = begin_ns + (uint64_t)(seconds * 1e9);
    run(all, poll_fd);
    report(all);
    return 0;
}
