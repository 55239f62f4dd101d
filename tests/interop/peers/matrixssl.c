/* Echo over DTLS 1.2 with MatrixSSL; see peer.h. */
#include "matrixssl/matrixsslApi.h"

#undef min
#undef max
#include "peer.h"

static sslKeys_t *keys;

/* One association. */
typedef struct {
  ssl_t *ssl;
  sslSessionId_t *id;
  int socket, open, closed;
  unsigned char message[LINE_BYTES_MAX];
  int message_length;
} association;

static const psCipher16_t SUITES[] = {0xc02b, 0xc02c, 0xcca9};
/* Its usual configuration has no ChaCha20-Poly1305. */
enum { USUAL_SUITES = 2 };

static const char *peer_version(void) { return "MatrixSSL " MATRIXSSL_VERSION; }

/* Only the pinned certificate is an authority, so the library's own judgement is the pin. */
static int32_t verify(ssl_t *ssl, psX509Cert_t *certificate, int32_t alert) {
  (void)ssl, (void)certificate;
  return options.peer_certificate ? alert : 0;
}

static void peer_set_up(void) {
  unsupported(options.has_cid, "CID");
  unsupported(options.resume, "RESUME");
  unsupported(options.key_log != NULL, "KEYLOG");
  unsupported(!options.ems, "EMS=0");
  unsupported(!options.renegotiation_info, "RENEGOTIATION_INFO=0");
  if (matrixSslOpen() < 0 || matrixSslNewKeys(&keys, NULL) < 0) die("the library does not start");
  const char *authority = options.peer_certificate ? options.peer_certificate : options.certificate;
  int loaded = matrixSslLoadEcKeys(keys, options.certificate, options.key, NULL, authority);
  if (loaded < 0) die("the identity is not usable: %d", loaded);
  if (options.mtu_bytes) matrixDtlsSetPmtu(options.mtu_bytes);
  for (int i = 0; options.is_server && options.suite != ANY_SUITE && i < ANY_SUITE; i++) {
    if (i != (int)options.suite) matrixSslSetCipherSuiteEnabledStatus(NULL, SUITES[i], PS_FALSE);
  }
}

/* Sends the next flight, or the last one again. */
static void send_flight(association *a) {
  unsigned char *data;
  int32 length;
  while ((length = matrixDtlsGetOutdata(a->ssl, &data)) > 0) {
    send(a->socket, data, (size_t)length, 0);
    int32 sent = matrixDtlsSentData(a->ssl, (uint32)length);
    if (sent == MATRIXSSL_HANDSHAKE_COMPLETE) a->open = 1;
    if (sent == MATRIXSSL_REQUEST_CLOSE) a->closed = 1;
    if (sent < 0 || a->closed) break;
  }
}

static void take(association *a) {
  static unsigned char datagram[DATAGRAM_BYTES_MAX];
  ssize_t got = recv(a->socket, datagram, sizeof datagram, 0);
  unsigned char *data;
  uint32 length;
  int32 room = matrixSslGetReadbufOfSize(a->ssl, (int32)(got > 0 ? got : 1), &data);
  if (got <= 0 || room < got) return;
  memcpy(data, datagram, (size_t)got);
  int32 result = matrixSslReceivedData(a->ssl, (uint32)got, &data, &length);
  for (;;) {
    switch (result) {
      case MATRIXSSL_REQUEST_SEND: send_flight(a); return;
      case MATRIXSSL_HANDSHAKE_COMPLETE: a->open = 1; return;
      case MATRIXSSL_APP_DATA:
        a->message_length = (int)(length < sizeof a->message ? length : sizeof a->message);
        memcpy(a->message, data, (size_t)a->message_length);
        break;
      case MATRIXSSL_RECEIVED_ALERT:
        fprintf(stderr, "alert: %d %d\n", data[0], data[1]);
        if (data[0] == SSL_ALERT_LEVEL_FATAL) die("fatal alert %d", data[1]);
        if (data[1] == SSL_ALERT_CLOSE_NOTIFY) a->closed = 1;
        break;
      default:
        if (result >= 0) return;
        send_flight(a);
        die("refused what came: %d", result);
    }
    result = matrixSslProcessedData(a->ssl, &data, &length);
    if (result == 0) return;
  }
}

static void *peer_open(int socket, int resuming) {
  (void)resuming;
  association *a = calloc(1, sizeof *a);
  sslSessOpts_t session_options;
  memset(&session_options, 0, sizeof session_options);
  session_options.versionFlag = SSL_FLAGS_DTLS | SSL_FLAGS_TLS_1_2;
  a->socket = socket;
  if (options.is_server) {
    if (matrixSslNewServerSession(&a->ssl, keys, verify, &session_options) < 0) die("no session");
  } else {
    const psCipher16_t *suites = options.suite == ANY_SUITE ? SUITES : &SUITES[options.suite];
    matrixSslNewSessionId(&a->id, NULL);
    int begun = matrixSslNewClientSession(&a->ssl, keys, a->id, suites, options.suite == ANY_SUITE ? USUAL_SUITES : 1,
                                          verify, NULL, NULL, NULL, &session_options);
    if (begun != MATRIXSSL_REQUEST_SEND) die("no session: %d", begun);
    send_flight(a);
  }
  int wait_ms = 1000;
  while (!a->open) {
    if (wait_readable(socket, wait_ms)) {
      take(a);
    } else {
      send_flight(a);
      wait_ms *= 2;
    }
    if (a->closed) die("the handshake failed");
  }
  /* It does not tell: known where one was allowed. */
  report(options.suite == ANY_SUITE ? NULL : SUITE_NAMES[options.suite], NULL, NULL, NULL, 0);
  matrixDtlsSetPmtu(OPEN_MTU_BYTES);
  return a;
}

static void peer_write(void *session, const unsigned char *data, size_t length) {
  association *a = session;
  unsigned char *room;
  if (matrixSslGetWritebuf(a->ssl, &room, (uint32)length) < (int32)length) die("cannot write");
  memcpy(room, data, length);
  if (matrixSslEncodeWritebuf(a->ssl, (uint32)length) < 0) die("cannot write");
  send_flight(a);
}

static int peer_read(void *session, unsigned char *data, size_t capacity, int timeout_ms) {
  association *a = session;
  if (wait_readable(a->socket, timeout_ms)) take(a);
  if (a->message_length > 0) {
    int length = a->message_length < (int)capacity ? a->message_length : (int)capacity;
    memcpy(data, a->message, (size_t)length);
    a->message_length = 0;
    return length;
  }
  return a->closed ? PEER_CLOSED : PEER_NOTHING;
}

static void peer_close(void *session) {
  association *a = session;
  if (matrixSslEncodeClosureAlert(a->ssl) >= 0) send_flight(a);
  matrixSslDeleteSession(a->ssl);
  free(a);
}
