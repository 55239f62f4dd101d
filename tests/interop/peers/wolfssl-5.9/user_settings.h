/* How wolfSSL is built for its echo program: DTLS 1.2 with what our profile offers, connection ids,
 * tickets, key log. Everything portable C but the compiler's own optimisations. */
#ifndef USER_SETTINGS_H
#define USER_SETTINGS_H

#define WOLFSSL_DTLS
#define WOLFSSL_DTLS_MTU
#define WOLFSSL_DTLS_CID
/* DTLS 1.3 is not spoken, but connection ids are compiled with it only. */
#define WOLFSSL_DTLS13
#define WOLFSSL_TLS13
#define WOLFSSL_DTLS_CH_FRAG
#define WOLFSSL_SEND_HRR_COOKIE
#define HAVE_TLS_EXTENSIONS
#define HAVE_SUPPORTED_CURVES
#define HAVE_EXTENDED_MASTER
#define HAVE_SERVER_RENEGOTIATION_INFO
#define HAVE_SESSION_TICKET
#define HAVE_ENCRYPT_THEN_MAC
#define HAVE_SECRET_CALLBACK
#define OPENSSL_EXTRA
#define WOLFSSL_ALWAYS_VERIFY_CB
#define WOLFSSL_VERIFY_CB_ALL_CERTS
#define KEEP_PEER_CERT

#define HAVE_ECC
#define HAVE_ECC384
#define ECC_TIMING_RESISTANT
#define HAVE_CURVE25519
#define HAVE_ED25519
#define HAVE_AESGCM
#define GCM_TABLE_4BIT
#define HAVE_CHACHA
#define HAVE_POLY1305
#define HAVE_HKDF
#define HAVE_HASHDRBG
#define WOLFSSL_SHA384
#define WOLFSSL_SHA512
#define WOLFSSL_SP_MATH_ALL
#define SP_INT_BITS 1024
#define NO_RSA
#define NO_DH
#define NO_DSA
#define NO_DES3
#define NO_RC4
#define NO_MD4
#define NO_PSK
#define NO_PWDBASED
#define WOLFSSL_NO_SHAKE128
#define WOLFSSL_NO_SHAKE256
#define NO_WOLFSSL_DIR

#endif
