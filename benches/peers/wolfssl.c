/* wolfSSL, Debian's 5.5 and our build of 5.9; see bench.h. */
#ifdef WOLFSSL_USER_SETTINGS
#include <wolfssl/wolfcrypt/settings.h>
#else
#include <wolfssl/options.h>
#endif
#include <wolfssl/ssl.h>

#include "bench.h"

static WOLFSSL_CTX *contexts[2];
static WOLFSSL_SESSION *saved;

static const char *peer_version(void) {
  static char text[64];
  snprintf(text, sizeof text, "wolfSSL %s", wolfSSL_lib_version());
  return text;
}

static void check(int result, const char *what) {
  if (result != WOLFSSL_SUCCESS) die("%s: %d", what, result);
}

static int verify_client(int trusted, WOLFSSL_X509_STORE_CTX *store) {
  (void)trusted;
  return store->totalCerts > 0 && is_pinned(1, store->certs[0].buffer, store->certs[0].length);
}

static int verify_server(int trusted, WOLFSSL_X509_STORE_CTX *store) {
  (void)trusted;
  return store->totalCerts > 0 && is_pinned(0, store->certs[0].buffer, store->certs[0].length);
}

static int wire_send(WOLFSSL *ssl, char *data, int length, void *wire) {
  (void)ssl;
  end_send(wire, data, (size_t)length);
  return length;
}

static int wire_receive(WOLFSSL *ssl, char *data, int capacity, void *wire) {
  (void)ssl;
  int got = end_receive(wire, data, (size_t)capacity);
  return got < 0 ? WOLFSSL_CBIO_ERR_WANT_READ : got;
}

/* The library asks for a cookie callback where the socket is not its own: a MAC of the address. */
#include <wolfssl/wolfcrypt/hmac.h>

static unsigned char cookie_secret[32];

static int make_cookie(WOLFSSL *ssl, unsigned char *cookie, int length, void *wire) {
  (void)ssl;
  unsigned char mac[WC_SHA256_DIGEST_SIZE];
  end *e = wire;
  Hmac hmac;
  if (wc_HmacInit(&hmac, NULL, INVALID_DEVID) || wc_HmacSetKey(&hmac, WC_SHA256, cookie_secret, sizeof cookie_secret) ||
      wc_HmacUpdate(&hmac, (unsigned char *)&e->to, sizeof e->to) || wc_HmacFinal(&hmac, mac)) {
    return -1;
  }
  wc_HmacFree(&hmac);
  if (length > (int)sizeof mac) length = sizeof mac;
  memcpy(cookie, mac, (size_t)length);
  return length;
}

static void peer_set_up(void) {
  wolfSSL_Init();
  for (int who = CLIENT; who <= SERVER; who++) {
    WOLFSSL_CTX *context = contexts[who] =
        wolfSSL_CTX_new(who == SERVER ? wolfDTLSv1_2_server_method() : wolfDTLSv1_2_client_method());
    if (!context) die("no context");
    check(wolfSSL_CTX_use_certificate_file(context, certificates[who], WOLFSSL_FILETYPE_PEM), "the certificate is not usable");
    check(wolfSSL_CTX_use_PrivateKey_file(context, keys[who], WOLFSSL_FILETYPE_PEM), "the key is not usable");
    wolfSSL_CTX_set_verify(context, WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                           who == SERVER ? verify_client : verify_server);
    check(wolfSSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-GCM-SHA256"), "suite");
    check(wolfSSL_CTX_UseSupportedCurve(context, WOLFSSL_ECC_SECP256R1), "group");
    wolfSSL_CTX_SetIOSend(context, wire_send);
    wolfSSL_CTX_SetIORecv(context, wire_receive);
  }
  check(wolfSSL_CTX_UseSessionTicket(contexts[CLIENT]), "tickets");
  wolfSSL_CTX_SetGenCookie(contexts[SERVER], make_cookie);
}

static void *peer_new(end *e, int is_server, int resuming) {
  WOLFSSL *ssl = wolfSSL_new(contexts[is_server ? SERVER : CLIENT]);
  if (!ssl) die("no session");
  wolfSSL_SetIOReadCtx(ssl, e);
  wolfSSL_SetIOWriteCtx(ssl, e);
  wolfSSL_SetCookieCtx(ssl, e);
  wolfSSL_dtls_set_using_nonblock(ssl, 1);
#ifdef WOLFSSL_DTLS_MTU
  wolfSSL_dtls_set_mtu(ssl, MTU_BYTES);
#endif
  if (is_server) {
    wolfSSL_set_accept_state(ssl);
  } else {
    wolfSSL_set_connect_state(ssl);
    if (resuming) check(wolfSSL_set_session(ssl, saved), "the saved session");
  }
  return ssl;
}

static int peer_step(void *session) {
  WOLFSSL *ssl = session;
  int done = wolfSSL_is_server(ssl) ? wolfSSL_accept(ssl) : wolfSSL_connect(ssl);
  if (done == WOLFSSL_SUCCESS) return 1;
  int error = wolfSSL_get_error(ssl, done);
  if (error != WOLFSSL_ERROR_WANT_READ && error != WOLFSSL_ERROR_WANT_WRITE) {
    char text[WOLFSSL_MAX_ERROR_SZ];
    die("the handshake failed: %d %s", error, wolfSSL_ERR_error_string((unsigned long)error, text));
  }
  return 0;
}

static int peer_is_resumed(void *session) { return wolfSSL_session_reused(session); }

static int peer_save(void *session) { return (saved = wolfSSL_get1_session(session)) != NULL; }

static void peer_write(void *session, const unsigned char *data, size_t length) {
  int done = wolfSSL_write(session, data, (int)length);
  if (done != (int)length) die("cannot write: %d", wolfSSL_get_error(session, done));
}

static int peer_read(void *session, unsigned char *data, size_t capacity) {
  int got = wolfSSL_read(session, data, (int)capacity);
  return got > 0 ? got : -1;
}

static void peer_say_goodbye(void *session) { wolfSSL_shutdown(session); }
static void peer_free(void *session) { wolfSSL_free(session); }
