/* A static program that does nothing: what its start costs is what a start costs. */
int main(void)
{
    return 0;
}
