/* Results of libcrypto's assembly: its tables stand in text and hold bytes that read as system calls.
 *
 * Prints what is the same in each run: digests, a cipher's text, shared secrets and public keys of fixed keys; signatures,
 * which are random, are made and checked. A table with one byte changed gives another key or a signature that fails. */
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <string.h>

static int failures;

static void hex(const char *what, const unsigned char *data, size_t bytes) {
    printf("%s ", what);
    for (size_t i = 0; i < bytes; i++)
        printf("%02x", data[i]);
    printf("\n");
}

static void digest(const char *name) {
    unsigned char out[EVP_MAX_MD_SIZE], in[5000];
    unsigned bytes = 0;
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (unsigned char)(i * 7);
    failures += !EVP_Digest(in, sizeof in, out, &bytes, EVP_get_digestbyname(name), NULL);
    hex(name, out, bytes);
}

static void cipher(const char *name) {
    unsigned char key[64], iv[16], in[1024], out[1100];
    int bytes = 0, more = 0;
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (unsigned char)i, key[i % 64] = (unsigned char)(i * 3), iv[i % 16] = (unsigned char)(i * 5);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    failures += !EVP_EncryptInit_ex(c, EVP_get_cipherbyname(name), NULL, key, iv);
    failures += !EVP_EncryptUpdate(c, out, &bytes, in, sizeof in) || !EVP_EncryptFinal_ex(c, out + bytes, &more);
    hex(name, out, (size_t)(bytes + more));
    EVP_CIPHER_CTX_free(c);
}

static EVP_PKEY *raw_key(int type, unsigned char first) {
    unsigned char secret[57];
    for (size_t i = 0; i < sizeof secret; i++)
        secret[i] = (unsigned char)(first + i);
    return EVP_PKEY_new_raw_private_key(type, NULL, secret, type == EVP_PKEY_ED448 ? 57 : type == EVP_PKEY_X448 ? 56 : 32);
}

static void agree(const char *what, EVP_PKEY *mine, EVP_PKEY *other) {
    unsigned char out[128];
    size_t bytes = sizeof out;
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(mine, NULL);
    failures += EVP_PKEY_derive_init(c) <= 0 || EVP_PKEY_derive_set_peer(c, other) <= 0 || EVP_PKEY_derive(c, out, &bytes) <= 0;
    hex(what, out, bytes);
    EVP_PKEY_CTX_free(c);
}

/* A signature is good, and is not any more where a byte of the text is another one. */
static void sign(const char *what, EVP_PKEY *key, const EVP_MD *md) {
    unsigned char text[] = "which bytes are code", signature[1024];
    size_t bytes = sizeof signature;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    failures += EVP_DigestSignInit(c, NULL, md, NULL, key) <= 0 || EVP_DigestSign(c, signature, &bytes, text, sizeof text) <= 0;
    EVP_MD_CTX_reset(c);
    int good = EVP_DigestVerifyInit(c, NULL, md, NULL, key) > 0 && EVP_DigestVerify(c, signature, bytes, text, sizeof text) == 1;
    text[3] ^= 1;
    EVP_MD_CTX_reset(c);
    int bad = EVP_DigestVerifyInit(c, NULL, md, NULL, key) > 0 && EVP_DigestVerify(c, signature, bytes, text, sizeof text) == 1;
    failures += !good || bad;
    printf("%s %s\n", what, good && !bad ? "signs" : "FAILS");
    EVP_MD_CTX_free(c);
}

/* The curve's key agreement with a fixed scalar: its public point is made from the assembly's table. */
static void curve(const char *name, const char *scalar_hex) {
    BIGNUM *scalar = NULL;
    unsigned char point[200];
    size_t bytes = 0;
    BN_hex2bn(&scalar, scalar_hex);
    EVP_PKEY *random = EVP_EC_gen(name), *fixed = NULL;
    OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
    EVP_PKEY_CTX *c = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    EC_GROUP *group = EC_GROUP_new_by_curve_name(OBJ_sn2nid(name));
    EC_POINT *public = EC_POINT_new(group);
    failures += !EC_POINT_mul(group, public, scalar, NULL, NULL, NULL);
    bytes = EC_POINT_point2oct(group, public, POINT_CONVERSION_UNCOMPRESSED, point, sizeof point, NULL);
    hex(name, point, bytes);
    OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, name, 0);
    OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_PRIV_KEY, scalar);
    OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, bytes);
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(b);
    failures += EVP_PKEY_fromdata_init(c) <= 0 || EVP_PKEY_fromdata(c, &fixed, EVP_PKEY_KEYPAIR, params) <= 0;
    agree(name, fixed, fixed);
    for (int i = 0; i < 20; i++)
        sign(name, i % 2 ? fixed : random, EVP_sha256());
}

int main(void) {
    static const char *const digests[] = {"SHA1", "SHA256", "SHA512", "SHA3-256", "BLAKE2b512", "MD5"};
    static const char *const ciphers[] = {"AES-128-CBC", "AES-256-GCM", "AES-256-XTS", "ChaCha20", "CAMELLIA-256-CBC"};
    for (size_t i = 0; i < sizeof digests / sizeof *digests; i++)
        digest(digests[i]);
    for (size_t i = 0; i < sizeof ciphers / sizeof *ciphers; i++)
        cipher(ciphers[i]);
    curve("prime256v1", "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721");
    curve("secp384r1", "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d8");
    agree("X25519", raw_key(EVP_PKEY_X25519, 1), raw_key(EVP_PKEY_X25519, 77));
    agree("X448", raw_key(EVP_PKEY_X448, 1), raw_key(EVP_PKEY_X448, 77));
    sign("Ed25519", raw_key(EVP_PKEY_ED25519, 9), NULL);
    sign("Ed448", raw_key(EVP_PKEY_ED448, 9), NULL);
    sign("RSA", EVP_RSA_gen(2048), EVP_sha256());
    printf("%d failures\n", failures);
    return failures != 0;
}
