/* Functions by which a library may say that it is not OpenSSL. The rest it has from OpenSSL, to which
 * it is linked. */
#ifdef TEXT
const char *OpenSSL_version(int what);

const char *
OpenSSL_version(int what)
{
    (void)what;
    return TEXT;
}
#endif

#ifdef SYMBOL
int SYMBOL(void);

int
SYMBOL(void)
{
    return 1;
}
#endif
