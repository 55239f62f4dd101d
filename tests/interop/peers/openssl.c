/* Echo over DTLS 1.2 with OpenSSL; see peer.h. */
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

#include "peer.h"

static SSL_CTX *context;
static SSL_SESSION *saved;

static const char *peer_version(void) { return OpenSSL_version(OPENSSL_VERSION); }

static void fail(const char *what) {
  ERR_print_errors_fp(stderr);
  die("%s", what);
}

static int verify(int trusted, X509_STORE_CTX *store) {
  (void)trusted;
  unsigned char *der = NULL;
  int length = i2d_X509(X509_STORE_CTX_get_current_cert(store), &der);
  int pinned = length > 0 && is_pinned(der, (size_t)length);
  OPENSSL_free(der);
  if (!pinned) X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
  return pinned;
}

static void log_key(const SSL *ssl, const char *line) {
  (void)ssl;
  log_key_line(line);
}

/* One process serves one client: a fixed cookie shows that the exchange takes place. */
static int make_cookie(SSL *ssl, unsigned char *cookie, unsigned *length) {
  (void)ssl;
  memset(cookie, 0xc0, *length = 16);
  return 1;
}

static int check_cookie(SSL *ssl, const unsigned char *cookie, unsigned length) {
  unsigned char wanted[DTLS1_COOKIE_LENGTH];
  unsigned wanted_length;
  make_cookie(ssl, wanted, &wanted_length);
  return length == wanted_length && !memcmp(cookie, wanted, length);
}

static void peer_set_up(void) {
  unsupported(options.has_cid, "CID");
  unsupported(!options.renegotiation_info, "RENEGOTIATION_INFO=0");
  context = SSL_CTX_new(DTLS_method());
  SSL_CTX_set_min_proto_version(context, DTLS1_2_VERSION);
  SSL_CTX_set_max_proto_version(context, DTLS1_2_VERSION);
  if (SSL_CTX_use_certificate_file(context, options.certificate, SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_use_PrivateKey_file(context, options.key, SSL_FILETYPE_PEM) != 1) {
    fail("the identity is not usable");
  }
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify);
  if (options.suite != ANY_SUITE) SSL_CTX_set_cipher_list(context, OPENSSL_SUITE_NAMES[options.suite]);
  if (!options.ems) SSL_CTX_set_options(context, SSL_OP_NO_EXTENDED_MASTER_SECRET);
  if (options.key_log) SSL_CTX_set_keylog_callback(context, log_key);
  SSL_CTX_set_session_id_context(context, (const unsigned char *)"echo", 4);
  SSL_CTX_set_options(context, SSL_OP_COOKIE_EXCHANGE);
  SSL_CTX_set_cookie_generate_cb(context, make_cookie);
  SSL_CTX_set_cookie_verify_cb(context, check_cookie);
}

static void say_what_was_agreed(SSL *ssl) {
  char group[64] = "-";
  EVP_PKEY *key = NULL;
  if (SSL_get_peer_tmp_key(ssl, &key) == 1) {
    size_t length;
    if (EVP_PKEY_get_group_name(key, group, sizeof group, &length) != 1) {
      snprintf(group, sizeof group, "%s", EVP_PKEY_get0_type_name(key));
    }
    EVP_PKEY_free(key);
  }
  report(from_openssl_name(SSL_get_cipher_name(ssl)), group,
         yes_or_no(SSL_get_extms_support(ssl) == 1), NULL, SSL_session_reused(ssl));
}

static void *peer_open(int socket, int resuming) {
  SSL *ssl = SSL_new(context);
  BIO *bio = BIO_new_dgram(socket, BIO_NOCLOSE);
  struct sockaddr_in remote;
  socklen_t length = sizeof remote;
  getpeername(socket, (struct sockaddr *)&remote, &length);
  BIO_ctrl(bio, BIO_CTRL_DGRAM_SET_CONNECTED, 0, &remote);
  SSL_set_bio(ssl, bio, bio);
  if (options.mtu_bytes) {
    SSL_set_options(ssl, SSL_OP_NO_QUERY_MTU);
    SSL_set_mtu(ssl, options.mtu_bytes);
  }
  if (options.is_server) {
    SSL_set_accept_state(ssl);
  } else {
    SSL_set_connect_state(ssl);
    if (resuming && saved) SSL_set_session(ssl, saved);
  }
  int done;
  while ((done = SSL_do_handshake(ssl)) != 1) {
    if (SSL_get_error(ssl, done) != SSL_ERROR_WANT_READ) fail("the handshake failed");
    struct timeval left = {1, 0};
    DTLSv1_get_timeout(ssl, &left);
    if (!wait_readable(socket, (int)(left.tv_sec * 1000 + left.tv_usec / 1000 + 1))) {
      if (DTLSv1_handle_timeout(ssl) < 0) fail("the handshake timed out");
    }
  }
  say_what_was_agreed(ssl);
  return ssl;
}

static void peer_write(void *session, const unsigned char *data, size_t length) {
  SSL *ssl = session;
  if (SSL_write(ssl, data, (int)length) != (int)length) fail("cannot write");
}

static int peer_read(void *session, unsigned char *data, size_t capacity, int timeout_ms) {
  SSL *ssl = session;
  if (!SSL_pending(ssl) && !wait_readable(SSL_get_fd(ssl), timeout_ms)) return PEER_NOTHING;
  int got = SSL_read(ssl, data, (int)capacity);
  if (got > 0) return got;
  switch (SSL_get_error(ssl, got)) {
    case SSL_ERROR_WANT_READ: return PEER_NOTHING;
    case SSL_ERROR_ZERO_RETURN: return PEER_CLOSED;
    default: fail("cannot read");
  }
  return PEER_CLOSED;
}

static void peer_close(void *session) {
  SSL *ssl = session;
  if (!options.is_server && !saved) saved = SSL_get1_session(ssl);
  SSL_shutdown(ssl);
  SSL_free(ssl);
}
