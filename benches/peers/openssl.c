/* OpenSSL, Debian's 3.0 and our build of 3.6; see bench.h. */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

#include "bench.h"

static SSL_CTX *contexts[2];
static SSL_SESSION *saved;
static BIO_METHOD *method;
static unsigned char cookie_secret[32];

static const char *peer_version(void) { return OpenSSL_version(OPENSSL_VERSION); }

static void fail(const char *what) {
  ERR_print_errors_fp(stderr);
  die("%s", what);
}

static int verify(X509_STORE_CTX *store, void *is_server) {
  unsigned char der[4096], *at = der;
  X509 *certificate = X509_STORE_CTX_get0_cert(store);
  int length = i2d_X509(certificate, NULL);
  if (length <= 0 || length > (int)sizeof der) return 0;
  i2d_X509(certificate, &at);
  return is_pinned(is_server != NULL, der, (size_t)length);
}

/* As its manual says: a MAC of the peer's address. In memory all have the same. */
static int make_cookie(SSL *ssl, unsigned char *cookie, unsigned *length) {
  struct sockaddr_in address = {0};
  BIO *bio = SSL_get_rbio(ssl);
  end *e = BIO_get_data(bio);
  if (e->has_to) address = e->to;
  return HMAC(EVP_sha256(), cookie_secret, sizeof cookie_secret, (unsigned char *)&address, sizeof address,
              cookie, length) != NULL;
}

static int check_cookie(SSL *ssl, const unsigned char *cookie, unsigned length) {
  unsigned char wanted[EVP_MAX_MD_SIZE];
  unsigned wanted_length;
  return make_cookie(ssl, wanted, &wanted_length) && length == wanted_length &&
         !CRYPTO_memcmp(cookie, wanted, length);
}

static int bio_write(BIO *bio, const char *data, int length) {
  end_send(BIO_get_data(bio), data, (size_t)length);
  return length;
}

static int bio_read(BIO *bio, char *data, int capacity) {
  int got = end_receive(BIO_get_data(bio), data, (size_t)capacity);
  BIO_clear_retry_flags(bio);
  if (got < 0) BIO_set_retry_read(bio);
  return got;
}

static long bio_ctrl(BIO *bio, int what, long number, void *pointer) {
  (void)bio, (void)number, (void)pointer;
  switch (what) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_DGRAM_QUERY_MTU:
    case BIO_CTRL_DGRAM_GET_FALLBACK_MTU: return MTU_BYTES;
    default: return 0;
  }
}

static void peer_set_up(void) {
  RAND_bytes(cookie_secret, sizeof cookie_secret);
  method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire");
  BIO_meth_set_write(method, bio_write);
  BIO_meth_set_read(method, bio_read);
  BIO_meth_set_ctrl(method, bio_ctrl);
  for (int who = CLIENT; who <= SERVER; who++) {
    SSL_CTX *context = contexts[who] = SSL_CTX_new(who == SERVER ? DTLS_server_method() : DTLS_client_method());
    SSL_CTX_set_min_proto_version(context, DTLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(context, DTLS1_2_VERSION);
    if (SSL_CTX_use_certificate_file(context, certificates[who], SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, keys[who], SSL_FILETYPE_PEM) != 1) {
      fail("the identity is not usable");
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(context, verify, who == SERVER ? &contexts : NULL);
    SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-GCM-SHA256");
    SSL_CTX_set1_groups_list(context, "P-256");
    SSL_CTX_set1_sigalgs_list(context, "ECDSA+SHA256");
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"bench", 5);
    SSL_CTX_set_options(context, SSL_OP_NO_QUERY_MTU);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  }
  SSL_CTX_set_options(contexts[SERVER], SSL_OP_COOKIE_EXCHANGE);
  SSL_CTX_set_cookie_generate_cb(contexts[SERVER], make_cookie);
  SSL_CTX_set_cookie_verify_cb(contexts[SERVER], check_cookie);
}

static void *peer_new(end *e, int is_server, int resuming) {
  SSL *ssl = SSL_new(contexts[is_server ? SERVER : CLIENT]);
  BIO *bio = BIO_new(method);
  BIO_set_data(bio, e);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
  SSL_set_mtu(ssl, MTU_BYTES);
  if (is_server) {
    SSL_set_accept_state(ssl);
  } else {
    SSL_set_connect_state(ssl);
    if (resuming) SSL_set_session(ssl, saved);
  }
  return ssl;
}

static int peer_step(void *session) {
  int done = SSL_do_handshake(session);
  if (done == 1) {
    if (SSL_get_extms_support(session) != 1) die("no extended master secret");
    return 1;
  }
  if (SSL_get_error(session, done) != SSL_ERROR_WANT_READ) fail("the handshake failed");
  return 0;
}

static int peer_is_resumed(void *session) { return SSL_session_reused(session); }

static int peer_save(void *session) {
  saved = SSL_get1_session(session);
  return SSL_SESSION_is_resumable(saved);
}

static void peer_write(void *session, const unsigned char *data, size_t length) {
  if (SSL_write(session, data, (int)length) != (int)length) fail("cannot write");
}

static int peer_read(void *session, unsigned char *data, size_t capacity) {
  int got = SSL_read(session, data, (int)capacity);
  return got > 0 ? got : -1;
}

static void peer_say_goodbye(void *session) { SSL_shutdown(session); }
static void peer_free(void *session) {
  /* Freed without a goodbye a session counts as bad and could not be resumed. */
  SSL_set_quiet_shutdown(session, 1);
  SSL_shutdown(session);
  ERR_clear_error();
  SSL_free(session);
}
