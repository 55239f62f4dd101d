/* Echo over DTLS 1.2 with wolfSSL, Debian's 5.5 and our build of 5.9; see peer.h. */
#ifdef WOLFSSL_USER_SETTINGS
#include <wolfssl/wolfcrypt/settings.h>
#else
#include <wolfssl/options.h>
#endif
#include <wolfssl/ssl.h>

#include "peer.h"

static WOLFSSL_CTX *context;
static WOLFSSL_SESSION *saved;

static const char *peer_version(void) {
  static char text[64];
  snprintf(text, sizeof text, "wolfSSL %s", wolfSSL_lib_version());
  return text;
}

static void check(int result, const char *what) {
  if (result != WOLFSSL_SUCCESS) die("%s: %d", what, result);
}

static void fail(WOLFSSL *ssl, int result, const char *what) {
  char text[WOLFSSL_MAX_ERROR_SZ];
  int error = wolfSSL_get_error(ssl, result);
  die("%s: %d %s", what, error, wolfSSL_ERR_error_string((unsigned long)error, text));
}

static int verify(int trusted, WOLFSSL_X509_STORE_CTX *store) {
  (void)trusted;
  return store->totalCerts > 0 && is_pinned(store->certs[0].buffer, store->certs[0].length);
}

#ifdef HAVE_SECRET_CALLBACK
static void log_key(const WOLFSSL *ssl, const char *line) {
  (void)ssl;
  log_key_line(line);
}
#endif

static void peer_set_up(void) {
  unsupported(!options.renegotiation_info, "RENEGOTIATION_INFO=0");
#ifndef WOLFSSL_DTLS_CID
  unsupported(options.has_cid, "CID");
#endif
#ifndef HAVE_SECRET_CALLBACK
  unsupported(options.key_log != NULL, "KEYLOG");
#endif
  wolfSSL_Init();
  context = wolfSSL_CTX_new(options.is_server ? wolfDTLSv1_2_server_method() : wolfDTLSv1_2_client_method());
  if (!context) die("no context");
  check(wolfSSL_CTX_use_certificate_file(context, options.certificate, WOLFSSL_FILETYPE_PEM), "the certificate is not usable");
  check(wolfSSL_CTX_use_PrivateKey_file(context, options.key, WOLFSSL_FILETYPE_PEM), "the key is not usable");
  wolfSSL_CTX_set_verify(context, WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify);
  if (options.suite != ANY_SUITE) check(wolfSSL_CTX_set_cipher_list(context, OPENSSL_SUITE_NAMES[options.suite]), "SUITE");
  if (!options.ems) check(wolfSSL_CTX_DisableExtendedMasterSecret(context), "EMS");
  if (!options.is_server) check(wolfSSL_CTX_UseSessionTicket(context), "tickets");
#ifdef WOLFSSL_DTLS_MTU
  if (options.mtu_bytes) check(wolfSSL_CTX_dtls_set_mtu(context, (unsigned short)options.mtu_bytes), "MTU");
#endif
#ifdef HAVE_SECRET_CALLBACK
  if (options.key_log) wolfSSL_CTX_set_keylog_callback(context, log_key);
#endif
}

static void *peer_open(int socket, int resuming) {
  WOLFSSL *ssl = wolfSSL_new(context);
  if (!ssl) die("no session");
  struct sockaddr_in remote;
  socklen_t length = sizeof remote;
  check(wolfSSL_set_fd(ssl, socket), "socket");
  if (getpeername(socket, (struct sockaddr *)&remote, &length) == 0) {
    check(wolfSSL_dtls_set_peer(ssl, &remote, sizeof remote), "address");
  }
  wolfSSL_dtls_set_using_nonblock(ssl, 1);
#ifdef WOLFSSL_DTLS_CID
  if (options.has_cid) {
    check(wolfSSL_dtls_cid_use(ssl), "CID");
    check(wolfSSL_dtls_cid_set(ssl, options.cid, options.cid_length), "CID");
  }
#endif
  if (!options.is_server && resuming && saved) check(wolfSSL_set_session(ssl, saved), "the saved session");
  int done;
  while ((done = options.is_server ? wolfSSL_accept(ssl) : wolfSSL_connect(ssl)) != WOLFSSL_SUCCESS) {
    int error = wolfSSL_get_error(ssl, done);
    if (error != WOLFSSL_ERROR_WANT_READ && error != WOLFSSL_ERROR_WANT_WRITE) fail(ssl, done, "the handshake failed");
    if (!wait_readable(socket, wolfSSL_dtls_get_current_timeout(ssl) * 1000) &&
        wolfSSL_dtls_got_timeout(ssl) != WOLFSSL_SUCCESS) {
      fail(ssl, -1, "the handshake timed out");
    }
  }
  const char *cid = "no";
#ifdef WOLFSSL_DTLS_CID
  cid = yes_or_no(wolfSSL_dtls_cid_is_enabled(ssl));
#endif
  report(from_openssl_name(wolfSSL_get_cipher_name(ssl)), wolfSSL_get_curve_name(ssl), NULL, cid, wolfSSL_session_reused(ssl));
#ifdef WOLFSSL_DTLS_MTU
  wolfSSL_dtls_set_mtu(ssl, OPEN_MTU_BYTES);
#endif
  return ssl;
}

static void peer_write(void *session, const unsigned char *data, size_t length) {
  int done = wolfSSL_write(session, data, (int)length);
  if (done != (int)length) fail(session, done, "cannot write");
}

#ifdef WOLFSSL_DTLS_CID
/* Hands over a datagram wherever it comes from: the library answers there once a record of it proved
 * to be authentic. */
static void take_from_anywhere(WOLFSSL *ssl) {
  static unsigned char datagram[DATAGRAM_BYTES_MAX];
  struct sockaddr_in from;
  socklen_t length = sizeof from;
  ssize_t got = recvfrom(wolfSSL_get_fd(ssl), datagram, sizeof datagram, 0, (struct sockaddr *)&from, &length);
  if (got <= 0) return;
  wolfSSL_dtls_set_pending_peer(ssl, &from, length);
  wolfSSL_inject(ssl, datagram, (int)got);
}
#endif

static int peer_read(void *session, unsigned char *data, size_t capacity, int timeout_ms) {
  if (!wolfSSL_pending(session)) {
    if (!wait_readable(wolfSSL_get_fd(session), timeout_ms)) return PEER_NOTHING;
#ifdef WOLFSSL_DTLS_CID
    if (options.is_server && options.has_cid) take_from_anywhere(session);
#endif
  }
  int got = wolfSSL_read(session, data, (int)capacity);
  if (got > 0) return got;
  int error = wolfSSL_get_error(session, got);
  if (error == WOLFSSL_ERROR_ZERO_RETURN) return PEER_CLOSED;
  if (error == WOLFSSL_ERROR_WANT_READ || error == WOLFSSL_ERROR_WANT_WRITE) return PEER_NOTHING;
  fail(session, got, "cannot read");
  return PEER_CLOSED;
}

static void peer_close(void *session) {
  if (!options.is_server && !saved) saved = wolfSSL_get1_session(session);
  wolfSSL_shutdown(session);
  wolfSSL_free(session);
}
