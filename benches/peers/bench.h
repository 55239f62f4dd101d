/* What the measured programs share: commands on stdin, the wire between two ends, CPU time.
 * README.md says what the commands are. A program includes this once and fills in the functions
 * declared below for its library. Both ends are in this process, on one thread. */
#ifndef BENCH_H
#define BENCH_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  DATAGRAM_BYTES_MAX = 2048,
  /* Datagrams of 1,200 bytes of data fit; what our own engine is measured with. */
  MTU_BYTES = 1400,
  MESSAGE_BYTES_MAX = 1300,
  /* Datagrams that wait in memory: more than the longest flight. */
  LANE_DATAGRAMS = 32,
  /* Turns of both ends after which a handshake has failed. */
  TURNS_MAX = 64,
  SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
};

#if defined(__GNUC__)
__attribute__((noreturn, format(printf, 1, 2)))
#endif
static void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("error: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

/* One direction of a wire in memory. */
typedef struct {
  unsigned char bytes[LANE_DATAGRAMS][DATAGRAM_BYTES_MAX];
  size_t lengths[LANE_DATAGRAMS];
  unsigned first, count;
} lane;

/* Where an end sends and receives: two lanes, or a socket that is connected or has `to`. */
typedef struct {
  lane *in, *out;
  int fd;
  int has_to;
  struct sockaddr_in to;
} end;

static void end_send(end *e, const void *data, size_t length) {
  if (e->out) {
    lane *l = e->out;
    if (l->count == LANE_DATAGRAMS || length > DATAGRAM_BYTES_MAX) die("the wire is full");
    unsigned at = (l->first + l->count++) % LANE_DATAGRAMS;
    memcpy(l->bytes[at], data, length);
    l->lengths[at] = length;
    return;
  }
  ssize_t sent = e->has_to ? sendto(e->fd, data, length, 0, (struct sockaddr *)&e->to, sizeof e->to)
                           : send(e->fd, data, length, 0);
  if (sent != (ssize_t)length) die("send: %s", strerror(errno));
}

/* The length of the next datagram; -1 if there is none. */
static int end_receive(end *e, void *data, size_t capacity) {
  if (e->in) {
    lane *l = e->in;
    if (!l->count) return -1;
    size_t length = l->lengths[l->first];
    if (length > capacity) length = capacity;
    memcpy(data, l->bytes[l->first], length);
    l->first = (l->first + 1) % LANE_DATAGRAMS;
    l->count--;
    return (int)length;
  }
  return (int)recv(e->fd, data, capacity, MSG_DONTWAIT);
}

/* To be filled in by each program. */
static const char *peer_version(void);
static void peer_set_up(void);
/* A new session at one end; one that resumes takes what peer_save kept. */
static void *peer_new(end *e, int is_server, int resuming);
/* Goes on with the handshake as far as what has come allows; true when it is over. */
static int peer_step(void *session);
static int peer_is_resumed(void *session);
/* Keeps a client's session; false if there is nothing to be resumed. */
static int peer_save(void *session);
static void peer_write(void *session, const unsigned char *data, size_t length);
/* The length of the next message, -1 if there is none. */
static int peer_read(void *session, unsigned char *data, size_t capacity);
static void peer_say_goodbye(void *session);
static void peer_free(void *session);

/* Files in PEM, from the command line. */
static const char *certificates[2], *keys[2];
enum { CLIENT, SERVER };

/* The certificate in DER that an end wants to see, of its peer. */
static unsigned char *pinned[2];
static size_t pinned_length[2];

static inline int is_pinned(int is_server, const unsigned char *der, size_t length) {
  int peer = is_server ? CLIENT : SERVER;
  return length == pinned_length[peer] && !memcmp(der, pinned[peer], length);
}

static void read_certificate(int who) {
  FILE *file = fopen(certificates[who], "rb");
  if (!file) die("cannot read %s: %s", certificates[who], strerror(errno));
  static char text[8192];
  text[fread(text, 1, sizeof text - 1, file)] = 0;
  fclose(file);
  const char *head = "-----BEGIN CERTIFICATE-----", *at = strstr(text, head);
  if (!at) die("%s has no certificate in PEM", certificates[who]);
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  unsigned held = 0, bits = 0;
  unsigned char *der = malloc(sizeof text);
  size_t length = 0;
  for (at += strlen(head); *at && *at != '-'; at++) {
    const char *digit = strchr(digits, *at);
    if (!digit) continue;
    held = (held << 6 | (unsigned)(digit - digits)) & 0xffffff;
    if ((bits += 6) >= 8) der[length++] = (unsigned char)(held >> (bits -= 8));
  }
  pinned[who] = der;
  pinned_length[who] = length;
}

static uint64_t cpu_ns(void) {
  struct timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

/* The two ends of one association. */
typedef struct {
  end ends[2];
  void *sessions[2];
} pair;

static void finish(pair *p) {
  int done[2] = {0, 0};
  for (int turn = 0; turn < TURNS_MAX; turn++) {
    for (int who = CLIENT; who <= SERVER; who++) {
      if (!done[who]) done[who] = peer_step(p->sessions[who]);
    }
    if (done[CLIENT] && done[SERVER]) return;
  }
  die("the handshake does not come to an end");
}

static void begin(pair *p, int resuming) {
  p->sessions[CLIENT] = peer_new(&p->ends[CLIENT], 0, resuming);
  p->sessions[SERVER] = peer_new(&p->ends[SERVER], 1, resuming);
  finish(p);
}

static void end_pair(pair *p) {
  static unsigned char rest[DATAGRAM_BYTES_MAX];
  peer_say_goodbye(p->sessions[CLIENT]);
  while (peer_read(p->sessions[SERVER], rest, sizeof rest) >= 0) {}
  peer_say_goodbye(p->sessions[SERVER]);
  while (peer_read(p->sessions[CLIENT], rest, sizeof rest) >= 0) {}
  peer_free(p->sessions[CLIENT]);
  peer_free(p->sessions[SERVER]);
}

static void in_memory(pair *p) {
  static lane lanes[2];
  memset(p, 0, sizeof *p);
  lanes[CLIENT].count = lanes[SERVER].count = 0;
  for (int who = CLIENT; who <= SERVER; who++) {
    p->ends[who].in = &lanes[who];
    p->ends[who].out = &lanes[!who];
    p->ends[who].fd = -1;
  }
}

/* A socket at a free port of loopback, and its address: one of this process's own, as one address has
 * no ports for everybody. */
static int loopback_socket(struct sockaddr_in *address) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), bytes = SOCKET_BUFFER_BYTES;
  if (fd < 0) die("socket: %s", strerror(errno));
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  memset(address, 0, sizeof *address);
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(0x7f000001u | ((unsigned)getpid() & 0xffff) << 8);
  socklen_t length = sizeof *address;
  if (bind(fd, (struct sockaddr *)address, length) < 0) die("bind: %s", strerror(errno));
  getsockname(fd, (struct sockaddr *)address, &length);
  return fd;
}

static void on_sockets(pair *p) {
  struct sockaddr_in addresses[2];
  memset(p, 0, sizeof *p);
  for (int who = CLIENT; who <= SERVER; who++) p->ends[who].fd = loopback_socket(&addresses[who]);
  for (int who = CLIENT; who <= SERVER; who++) {
    if (connect(p->ends[who].fd, (struct sockaddr *)&addresses[!who], sizeof addresses[0]) < 0) {
      die("connect: %s", strerror(errno));
    }
  }
}

static uint64_t handshakes(unsigned count, int resuming) {
  uint64_t before = cpu_ns();
  for (unsigned i = 0; i < count; i++) {
    pair p;
    in_memory(&p);
    begin(&p, resuming);
    if (peer_is_resumed(p.sessions[CLIENT]) != resuming) die(resuming ? "not resumed" : "resumed");
    end_pair(&p);
  }
  return cpu_ns() - before;
}

/* A full handshake, for what it leaves behind. */
static int keep_session(void) {
  pair p;
  in_memory(&p);
  begin(&p, 0);
  int kept = peer_save(p.sessions[CLIENT]);
  end_pair(&p);
  return kept;
}

/* From server to client, `burst` records at a time. */
static uint64_t records(unsigned count, unsigned burst, unsigned bytes) {
  static pair p;
  static int is_open;
  static unsigned char message[MESSAGE_BYTES_MAX], got[DATAGRAM_BYTES_MAX];
  if (!is_open) {
    on_sockets(&p);
    begin(&p, 0);
    is_open = 1;
  }
  if (bytes > sizeof message) die("too long");
  uint64_t before = cpu_ns();
  for (unsigned sent = 0; sent < count;) {
    unsigned now = count - sent < burst ? count - sent : burst;
    for (unsigned i = 0; i < now; i++) peer_write(p.sessions[SERVER], message, bytes);
    for (unsigned i = 0; i < now; i++) {
      if (peer_read(p.sessions[CLIENT], got, sizeof got) != (int)bytes) die("a record is missing");
    }
    sent += now;
  }
  return cpu_ns() - before;
}

/* Associations of one server socket, each with a client socket of its own. The clients' sessions are
 * let go of: what comes is counted, not read. */
static pair *crowd;
static unsigned crowd_size;

static void gather(unsigned count) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  struct sockaddr_in server;
  int fd = loopback_socket(&server);
  crowd = calloc(count, sizeof *crowd);
  crowd_size = count;
  for (unsigned i = 0; i < count; i++) {
    pair *p = &crowd[i];
    p->ends[SERVER].fd = fd;
    p->ends[SERVER].has_to = 1;
    p->ends[CLIENT].fd = loopback_socket(&p->ends[SERVER].to);
    if (connect(p->ends[CLIENT].fd, (struct sockaddr *)&server, sizeof server) < 0) {
      die("connect: %s", strerror(errno));
    }
    begin(p, 0);
    peer_free(p->sessions[CLIENT]);
  }
}

static uint64_t fan_out(unsigned peers, unsigned bytes) {
  static unsigned char message[MESSAGE_BYTES_MAX], got[DATAGRAM_BYTES_MAX];
  if (!crowd) gather(peers);
  if (bytes > sizeof message || peers != crowd_size) die("the crowd is not as it was");
  for (unsigned i = 0; i < peers; i++) {
    while (recv(crowd[i].ends[CLIENT].fd, got, sizeof got, MSG_DONTWAIT) >= 0) {}
  }
  uint64_t before = cpu_ns();
  for (unsigned i = 0; i < peers; i++) peer_write(crowd[i].sessions[SERVER], message, bytes);
  uint64_t took = cpu_ns() - before;
  for (unsigned i = 0; i < peers; i++) {
    if (recv(crowd[i].ends[CLIENT].fd, got, sizeof got, MSG_DONTWAIT) < (ssize_t)bytes) die("a record is missing");
  }
  return took;
}

static size_t heap_bytes(void) {
  struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

static size_t resident_bytes(void) {
  unsigned long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file || fscanf(file, "%*u %lu", &pages) != 1) die("no /proc/self/statm");
  fclose(file);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Server ends that stay open, in memory; prints the bytes of all of them. */
static void idle(unsigned count) {
  pair first;
  in_memory(&first);
  begin(&first, 0);
  peer_free(first.sessions[CLIENT]);
  pair *all = calloc(count, sizeof *all);
  memset(all, 1, count * sizeof *all);
  malloc_trim(0);
  size_t heap = heap_bytes(), resident = resident_bytes();
  for (unsigned i = 0; i < count; i++) {
    in_memory(&all[i]);
    begin(&all[i], 0);
    peer_free(all[i].sessions[CLIENT]);
  }
  malloc_trim(0);
  heap = heap_bytes() - heap;
  resident = resident_bytes() - resident;
  printf("%zu %zu\n", heap, resident);
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: %s CLIENT_CERT CLIENT_KEY SERVER_CERT SERVER_KEY\n", argv[0]);
    return 64;
  }
  for (int who = CLIENT; who <= SERVER; who++) {
    certificates[who] = argv[1 + 2 * who];
    keys[who] = argv[2 + 2 * who];
    read_certificate(who);
  }
  peer_set_up();
  char line[128];
  while (fgets(line, sizeof line, stdin)) {
    unsigned a = 0, b = 0, c = 0;
    static int kept;
    if (!strcmp(line, "version\n")) {
      puts(peer_version());
    } else if (sscanf(line, "handshakes %u", &a) == 1) {
      printf("%" PRIu64 "\n", handshakes(a, 0));
    } else if (sscanf(line, "resumed %u", &a) == 1) {
      if (!kept && !(kept = keep_session())) {
        puts("none: no session to be resumed");
      } else {
        printf("%" PRIu64 "\n", handshakes(a, 1));
      }
    } else if (sscanf(line, "records %u %u %u", &a, &b, &c) == 3) {
      printf("%" PRIu64 "\n", records(a, b, c));
    } else if (sscanf(line, "fanout %u %u", &a, &b) == 2) {
      printf("%" PRIu64 "\n", fan_out(a, b));
    } else if (sscanf(line, "idle %u", &a) == 1) {
      idle(a);
    } else {
      die("no such command: %s", line);
    }
    fflush(stdout);
  }
  return 0;
}

#endif
