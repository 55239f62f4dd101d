/* OpenSSL's DTLS 1.2 without a socket and without a clock: datagrams, data and the time come in by
 * frames on stdin, and what follows goes out by frames on stdout. The test builds and drives it.
 *
 * In:  command u8, session u8, time in microseconds u64, length u32, payload (all little-endian)
 * Out: kind u8, length u32, payload; the answer to a command ends with kind '.'
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

enum { SESSIONS_MAX = 2, PAYLOAD_BYTES_MAX = 70000, EXPORTED_BYTES = 32 };

static uint64_t now_us;

/* libssl asks for the time by this name, and finds this one first. */
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    (void)zone;
    t->tv_sec = (time_t)(now_us / 1000000);
    t->tv_usec = (suseconds_t)(now_us % 1000000);
    return 0;
}

struct session {
    SSL_CTX *ctx;
    SSL *ssl;
    int is_open, is_over;
    unsigned char *pinned;
    int pinned_length;
    unsigned char datagram[PAYLOAD_BYTES_MAX];
    int datagram_length; /* -1: none */
    long mtu;
};

static struct session sessions[SESSIONS_MAX];

static void die(const char *what) {
    fprintf(stderr, "openssl peer: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void answer(char kind, const void *bytes, uint32_t length) {
    putchar(kind);
    fwrite(&length, sizeof length, 1, stdout);
    fwrite(bytes, 1, length, stdout);
}

static int bio_write(BIO *bio, const char *bytes, int length) {
    BIO_clear_retry_flags(bio);
    answer('d', bytes, (uint32_t)length);
    return length;
}

static int bio_read(BIO *bio, char *out, int length) {
    struct session *s = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (s->datagram_length < 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    int got = s->datagram_length < length ? s->datagram_length : length;
    memcpy(out, s->datagram, (size_t)got);
    s->datagram_length = -1;
    return got;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer) {
    struct session *s = BIO_get_data(bio);
    (void)number, (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_DGRAM_QUERY_MTU:
    case BIO_CTRL_DGRAM_GET_FALLBACK_MTU: return s->mtu;
    default: return 0;
    }
}

static int bio_create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

/* Our engine's default schedule: 400 ms, doubling to 4 s. */
static unsigned int next_timer(SSL *ssl, unsigned int previous_us) {
    (void)ssl;
    if (previous_us == 0) return 400000;
    return previous_us >= 2000000 ? 4000000 : 2 * previous_us;
}

static int make_cookie(SSL *ssl, unsigned char *cookie, unsigned int *length) {
    (void)ssl;
    memcpy(cookie, "sixteen bytes...", 16);
    *length = 16;
    return 1;
}

static int check_cookie(SSL *ssl, const unsigned char *cookie, unsigned int length) {
    (void)ssl;
    return length == 16 && memcmp(cookie, "sixteen bytes...", 16) == 0;
}

/* Exactly the pinned certificate, as ours does it. */
static int check_peer(X509_STORE_CTX *store, void *argument) {
    struct session *s = argument;
    unsigned char *der = NULL;
    int length = i2d_X509(X509_STORE_CTX_get0_cert(store), &der);
    int same = length == s->pinned_length && memcmp(der, s->pinned, (size_t)length) == 0;
    OPENSSL_free(der);
    X509_STORE_CTX_set_error(store, same ? X509_V_OK : X509_V_ERR_CERT_REJECTED);
    return same;
}

static void forget(struct session *s) {
    SSL_free(s->ssl);
    SSL_CTX_free(s->ctx);
    OPENSSL_free(s->pinned);
    memset(s, 0, sizeof *s);
    s->datagram_length = -1;
}

static void begin(struct session *s, char *text) {
    static BIO_METHOD *method;
    const char *suites = "", *groups = "", *identity = "", *pinned = "";
    int is_server = 0, has_ems = 1;
    forget(s);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *value = strchr(line, '=');
        if (!value) die("a line without a value");
        *value++ = 0;
        if (!strcmp(line, "role")) is_server = !strcmp(value, "server");
        else if (!strcmp(line, "suites")) suites = value;
        else if (!strcmp(line, "groups")) groups = value;
        else if (!strcmp(line, "identity")) identity = value;
        else if (!strcmp(line, "pinned")) pinned = value;
        else if (!strcmp(line, "mtu")) s->mtu = atol(value);
        else if (!strcmp(line, "ems")) has_ems = atoi(value);
        else die("an unknown key");
    }
    FILE *file = fopen(pinned, "r");
    X509 *certificate = file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;
    if (!certificate) die("no pinned certificate");
    fclose(file);
    s->pinned_length = i2d_X509(certificate, &s->pinned);
    X509_free(certificate);

    s->ctx = SSL_CTX_new(DTLS_method());
    if (!s->ctx || !SSL_CTX_set_min_proto_version(s->ctx, DTLS1_2_VERSION) ||
        !SSL_CTX_set_max_proto_version(s->ctx, DTLS1_2_VERSION) ||
        !SSL_CTX_set_cipher_list(s->ctx, suites) || !SSL_CTX_set1_groups_list(s->ctx, groups) ||
        SSL_CTX_use_certificate_file(s->ctx, identity, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(s->ctx, identity, SSL_FILETYPE_PEM) != 1)
        die("the configuration was refused");
    SSL_CTX_set_options(s->ctx, SSL_OP_NO_QUERY_MTU | SSL_OP_NO_TICKET | SSL_OP_COOKIE_EXCHANGE |
                                    SSL_OP_CIPHER_SERVER_PREFERENCE);
    if (!has_ems) SSL_CTX_set_options(s->ctx, SSL_OP_NO_EXTENDED_MASTER_SECRET);
    SSL_CTX_set_session_cache_mode(s->ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_cookie_generate_cb(s->ctx, make_cookie);
    SSL_CTX_set_cookie_verify_cb(s->ctx, check_cookie);
    SSL_CTX_set_verify(s->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(s->ctx, check_peer, s);

    if (!method) {
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "frames");
        BIO_meth_set_write(method, bio_write);
        BIO_meth_set_read(method, bio_read);
        BIO_meth_set_ctrl(method, bio_ctrl);
        BIO_meth_set_create(method, bio_create);
    }
    s->ssl = SSL_new(s->ctx);
    BIO *bio = BIO_new(method);
    if (!s->ssl || !bio) die("no memory");
    BIO_set_data(bio, s);
    SSL_set_bio(s->ssl, bio, bio);
    SSL_set_mtu(s->ssl, s->mtu);
    DTLS_set_timer_cb(s->ssl, next_timer);
    if (is_server) SSL_set_accept_state(s->ssl);
    else SSL_set_connect_state(s->ssl);
}

/* Says what went wrong unless it is only that more has to come. */
static void judge(struct session *s, int result) {
    int error = SSL_get_error(s->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return;
    s->is_over = 1;
    if (error == SSL_ERROR_ZERO_RETURN) {
        answer('c', "", 0);
        SSL_shutdown(s->ssl);
        return;
    }
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    reason = reason ? reason : "unknown";
    answer('e', reason, (uint32_t)strlen(reason));
}

static void report_open(struct session *s, const char *label) {
    /* Extended master secret u8, exported bytes, certificate. */
    unsigned char text[1 + EXPORTED_BYTES + 8192], *end = text + 1 + EXPORTED_BYTES;
    text[0] = SSL_get_extms_support(s->ssl) == 1;
    if (SSL_export_keying_material(s->ssl, text + 1, EXPORTED_BYTES, label, strlen(label),
                                   (const unsigned char *)"context", 7, 1) != 1)
        die("no exporter");
    X509 *peer = SSL_get1_peer_certificate(s->ssl);
    if (!peer || i2d_X509(peer, NULL) > 8192) die("no certificate of the peer");
    i2d_X509(peer, &end);
    X509_free(peer);
    answer('o', text, (uint32_t)(end - text));
}

static void go_on(struct session *s, const char *label) {
    static unsigned char data[PAYLOAD_BYTES_MAX];
    int result;
    ERR_clear_error();
    if (!s->is_open && !s->is_over) {
        result = SSL_do_handshake(s->ssl);
        if (result == 1) {
            s->is_open = 1;
            report_open(s, label);
        } else {
            judge(s, result);
        }
    }
    while (s->is_open && !s->is_over) {
        ERR_clear_error();
        result = SSL_read(s->ssl, data, sizeof data);
        if (result <= 0) {
            judge(s, result);
            break;
        }
        answer('r', data, (uint32_t)result);
    }
    s->datagram_length = -1;
    struct timeval left;
    if (!s->is_over && DTLSv1_get_timeout(s->ssl, &left)) {
        uint64_t us = (uint64_t)left.tv_sec * 1000000 + (uint64_t)left.tv_usec;
        answer('t', &us, sizeof us);
    }
}

int main(int argc, char **argv) {
    static char payload[PAYLOAD_BYTES_MAX + 1];
    unsigned char head[14];
    const char *label = argc > 1 ? argv[1] : "";
    for (int i = 0; i < SESSIONS_MAX; i++) sessions[i].datagram_length = -1;
    while (fread(head, 1, sizeof head, stdin) == sizeof head) {
        uint32_t length;
        memcpy(&now_us, head + 2, 8);
        memcpy(&length, head + 10, 4);
        if (head[1] >= SESSIONS_MAX || length > PAYLOAD_BYTES_MAX ||
            fread(payload, 1, length, stdin) != length)
            die("a bad frame");
        payload[length] = 0;
        struct session *s = &sessions[head[1]];
        int result = 1;
        ERR_clear_error();
        if (head[0] != 'N' && !s->ssl) die("no such session");
        switch (head[0]) {
        case 'N': begin(s, payload); break;
        case 'D':
            memcpy(s->datagram, payload, length);
            s->datagram_length = (int)length;
            break;
        case 'K':
            if (!s->is_over) result = DTLSv1_handle_timeout(s->ssl);
            if (result < 0) judge(s, result);
            break;
        case 'W':
            if (!s->is_open || s->is_over) break;
            result = SSL_write(s->ssl, payload, (int)length);
            if (result <= 0) judge(s, result);
            break;
        case 'R':
            result = SSL_renegotiate(s->ssl);
            if (result == 1) result = SSL_do_handshake(s->ssl);
            if (result <= 0) judge(s, result);
            break;
        case 'X':
            if (!s->is_over) SSL_shutdown(s->ssl);
            s->is_over = 1;
            break;
        default: die("an unknown command");
        }
        go_on(s, label);
        answer('.', "", 0);
        fflush(stdout);
    }
    for (int i = 0; i < SESSIONS_MAX; i++) forget(&sessions[i]);
    return 0;
}
