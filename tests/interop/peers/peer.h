/* What the echo programs in C and C++ share: the command line, the environment, the socket, the
 * echo. A program includes this once, with the functions that are declared below filled in for its
 * library. README.md says how the programs are called. */
#ifndef PEER_H
#define PEER_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  DATAGRAM_BYTES_MAX = 65535,
  LINE_BYTES_MAX = 16384,
  /* A line whose echo does not come is sent again after this. */
  RESEND_MS = 300,
  TIMEOUT_S_DEFAULT = 10,
  /* Datagram size for application data, where a library would refuse what is longer than MTU. */
  OPEN_MTU_BYTES = 1472
};

/* What peer_read says besides the length of a message. */
enum { PEER_CLOSED = 0, PEER_NOTHING = -1 };

enum suite { AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, ANY_SUITE };

static const char *const SUITE_NAMES[] = {
    "ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
};
static const char *const OPENSSL_SUITE_NAMES[] = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
};

static struct {
  int is_server;
  struct sockaddr_in address;
  const char *certificate, *key;
  const char *peer_certificate; /* NULL: anybody */
  enum suite suite;
  int mtu_bytes; /* 0: the library's own */
  FILE *key_log; /* NULL: none */
  int has_cid;
  unsigned char cid[255];
  unsigned cid_length;
  int resume;
  int ems;                /* 0: without extended master secret */
  int renegotiation_info; /* 0: without */
  int timeout_s;
} options;

/* To be filled in by each program. `peer_open` ends the program where the handshake fails, and says
 * what was agreed with `report`; `resuming` is true for the second association of RESUME. */
static const char *peer_version(void);
static void peer_set_up(void);
static void *peer_open(int socket, int resuming);
static void peer_write(void *session, const unsigned char *data, size_t length);
static int peer_read(void *session, unsigned char *data, size_t capacity, int timeout_ms);
/* Says goodbye and forgets the association, but for what its resumption needs. */
static void peer_close(void *session);

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

/* NULL for what the library does not tell. */
static void report(const char *suite, const char *group, const char *ems, const char *cid, int resumed) {
  fprintf(stderr, "PEER version=DTLSv1.2 suite=%s group=%s ems=%s cid=%s resumed=%s\n",
          suite ? suite : "-", group ? group : "-", ems ? ems : "-", cid ? cid : "no",
          resumed ? "yes" : "no");
}

static inline const char *yes_or_no(int yes) { return yes ? "yes" : "no"; }

/* A suite's name as the programs print it, from OpenSSL's. */
static inline const char *from_openssl_name(const char *name) {
  for (int i = 0; i < ANY_SUITE; i++) {
    if (name && !strcmp(name, OPENSSL_SUITE_NAMES[i])) return SUITE_NAMES[i];
  }
  return name;
}

static inline long long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* True if there is something to read within `ms`; a negative time waits on. */
static int wait_readable(int socket, int ms) {
  struct pollfd poll_fd = {socket, POLLIN, 0};
  return poll(&poll_fd, 1, ms) > 0;
}

static inline void log_key_line(const char *line) {
  if (!options.key_log) return;
  fprintf(options.key_log, "%s\n", line);
  fflush(options.key_log);
}

static inline void log_master_secret(const unsigned char random[32], const unsigned char *secret) {
  char line[256];
  char *at = line + sprintf(line, "CLIENT_RANDOM ");
  for (int i = 0; i < 32; i++) at += sprintf(at, "%02x", random[i]);
  *at++ = ' ';
  for (int i = 0; i < 48; i++) at += sprintf(at, "%02x", secret[i]);
  log_key_line(line);
}

/* The whole of a file, ended with a zero byte. */
static inline char *read_file(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  if (!file) die("cannot read %s: %s", path, strerror(errno));
  char *text = (char *)malloc(1 << 16);
  *length = fread(text, 1, (1 << 16) - 1, file);
  text[*length] = 0;
  fclose(file);
  return text;
}

static inline int base64_digit(char c) {
  const char *digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const char *found = c ? strchr(digits, c) : NULL;
  return found ? (int)(found - digits) : -1;
}

/* The first certificate of a PEM file, in DER. */
static inline unsigned char *read_certificate(const char *path, size_t *length) {
  size_t text_length;
  char *text = read_file(path, &text_length);
  const char *at = strstr(text, "-----BEGIN CERTIFICATE-----");
  if (!at) die("%s has no certificate in PEM", path);
  at += strlen("-----BEGIN CERTIFICATE-----");
  unsigned char *der = (unsigned char *)malloc(text_length);
  unsigned bits = 0, held = 0;
  *length = 0;
  for (; *at && *at != '-'; at++) {
    int digit = base64_digit(*at);
    if (digit < 0) continue;
    held = (held << 6 | (unsigned)digit) & 0xffffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      der[(*length)++] = (unsigned char)(held >> bits);
    }
  }
  free(text);
  return der;
}

/* True if this certificate is the one in PEER_CERT, or there is none. */
static inline int is_pinned(const unsigned char *der, size_t length) {
  if (!options.peer_certificate) return 1;
  size_t pinned_length;
  unsigned char *pinned = read_certificate(options.peer_certificate, &pinned_length);
  int same = length == pinned_length && !memcmp(der, pinned, length);
  free(pinned);
  if (!same) fprintf(stderr, "the peer's certificate is not the one in PEER_CERT\n");
  return same;
}

static int new_socket(void) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0), yes = 1;
  if (fd < 0) die("socket: %s", strerror(errno));
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  return fd;
}

static int bound_socket(void) {
  int fd = new_socket();
  if (bind(fd, (struct sockaddr *)&options.address, sizeof options.address) < 0) {
    die("cannot listen: %s", strerror(errno));
  }
  socklen_t length = sizeof options.address;
  getsockname(fd, (struct sockaddr *)&options.address, &length);
  return fd;
}

/* Waits for a ClientHello, leaves it in the socket and returns whose it is: what else comes is the
 * rest of an association that is over. */
static struct sockaddr_in await_client(int fd) {
  for (;;) {
    unsigned char head[14];
    struct sockaddr_in client;
    socklen_t length = sizeof client;
    wait_readable(fd, -1);
    ssize_t got = recvfrom(fd, head, sizeof head, MSG_PEEK, (struct sockaddr *)&client, &length);
    if (got == (ssize_t)sizeof head && head[0] == 22 && head[13] == 1) return client;
    recv(fd, head, sizeof head, 0);
  }
}

static void set_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

static void run_client(void) {
  for (int resuming = 0; resuming <= options.resume; resuming++) {
    int fd = new_socket();
    if (connect(fd, (struct sockaddr *)&options.address, sizeof options.address) < 0) {
      die("connect: %s", strerror(errno));
    }
    set_nonblocking(fd);
    void *session = peer_open(fd, resuming);
    static char line[LINE_BYTES_MAX];
    static unsigned char echo[LINE_BYTES_MAX];
    while (resuming == options.resume && fgets(line, sizeof line, stdin)) {
      size_t length = strlen(line);
      for (long long resend = now_ms();;) {
        long long left = resend - now_ms();
        if (left <= 0) {
          peer_write(session, (unsigned char *)line, length);
          resend = now_ms() + RESEND_MS;
          left = RESEND_MS;
        }
        int got = peer_read(session, echo, sizeof echo, (int)left);
        if (got == PEER_CLOSED) die("closed by the server");
        /* Anything else is the late echo of a line that was answered twice. */
        if (got == (int)length && !memcmp(echo, line, length)) break;
      }
      fputs(line, stdout);
      fflush(stdout);
    }
    peer_close(session);
    close(fd);
  }
}

static void run_server(void) {
  int fd = bound_socket();
  fprintf(stderr, "listening on 127.0.0.1:%d\n", ntohs(options.address.sin_port));
  puts("READY");
  fflush(stdout);
  for (int resuming = 0; resuming <= options.resume; resuming++) {
    struct sockaddr_in client = await_client(fd);
    /* With connection ids the client may come back from elsewhere. */
    if (!options.has_cid && connect(fd, (struct sockaddr *)&client, sizeof client) < 0) {
      die("connect: %s", strerror(errno));
    }
    set_nonblocking(fd);
    void *session = peer_open(fd, resuming);
    static unsigned char message[LINE_BYTES_MAX];
    int got;
    while ((got = peer_read(session, message, sizeof message, 1000)) != PEER_CLOSED) {
      if (got > 0) peer_write(session, message, (size_t)got);
    }
    /* The next socket is there before this one goes: the port stays ours. */
    int next = resuming < options.resume ? bound_socket() : -1;
    peer_close(session);
    close(fd);
    fd = next;
  }
}

static int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? atoi(text) : otherwise;
}

static void read_environment(void) {
  options.peer_certificate = getenv("PEER_CERT");
  options.mtu_bytes = number("MTU", 0);
  options.resume = number("RESUME", 0);
  options.ems = number("EMS", 1);
  options.renegotiation_info = number("RENEGOTIATION_INFO", 1);
  options.timeout_s = number("TIMEOUT", TIMEOUT_S_DEFAULT);
  options.suite = ANY_SUITE;
  const char *suite = getenv("SUITE");
  if (suite) {
    int i = 0;
    while (i < ANY_SUITE && strcmp(suite, SUITE_NAMES[i])) i++;
    if (i == ANY_SUITE) die("SUITE %s is none of %s, %s, %s", suite, SUITE_NAMES[0], SUITE_NAMES[1], SUITE_NAMES[2]);
    options.suite = (enum suite)i;
  }
  const char *key_log = getenv("KEYLOG");
  if (key_log && !(options.key_log = fopen(key_log, "a"))) {
    die("cannot open KEYLOG %s: %s", key_log, strerror(errno));
  }
  const char *cid = getenv("CID");
  options.has_cid = cid != NULL;
  for (; cid && strcmp(cid, "-") && *cid; cid += 2) {
    if (sscanf(cid, "%2hhx", &options.cid[options.cid_length++]) != 1) die("CID is not hexadecimal");
  }
}

static void on_alarm(int signal_number) {
  static const char text[] = "error: TIMEOUT passed\n";
  (void)signal_number;
  if (write(2, text, sizeof text - 1)) _exit(1);
  _exit(1);
}

/* A feature that the library does not have. */
static inline void unsupported(int wanted, const char *name) {
  if (!wanted) return;
  fprintf(stderr, "error: %s is set, which this library does not have\n", name);
  exit(64);
}

int main(int argc, char **argv) {
  if (argc == 2 && !strcmp(argv[1], "version")) {
    puts(peer_version());
    return 0;
  }
  options.is_server = argc == 5 && !strcmp(argv[1], "server");
  if (!options.is_server && !(argc == 6 && !strcmp(argv[1], "client"))) {
    fprintf(stderr, "usage: %s client HOST PORT CERT KEY\n       %s server PORT CERT KEY\n       %s version\n",
            argv[0], argv[0], argv[0]);
    return 64;
  }
  const char *host = options.is_server ? "127.0.0.1" : argv[2];
  options.address.sin_family = AF_INET;
  options.address.sin_port = htons((uint16_t)atoi(argv[argc - 3]));
  if (inet_pton(AF_INET, host, &options.address.sin_addr) != 1) die("%s is no IPv4 address", host);
  options.certificate = argv[argc - 2];
  options.key = argv[argc - 1];
  read_environment();
  signal(SIGPIPE, SIG_IGN);
  signal(SIGALRM, on_alarm);
  alarm((unsigned)options.timeout_s);
  peer_set_up();
  if (options.is_server) {
    run_server();
  } else {
    run_client();
  }
  return 0;
}

#endif
