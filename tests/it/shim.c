// System calls that fail, for LD_PRELOAD: what no test can have the real system do.
//
// SHIM_DENY=FILE     accept4 says EPERM as long as there is this file, as where a security module forbids it
// SHIM_NO_IPV6=1     socket has no family AF_INET6, as where the kernel was built without

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    int (*real)(int, struct sockaddr *, socklen_t *, int) = dlsym(RTLD_NEXT, "accept4");
    const char *file = getenv("SHIM_DENY");
    if (file && access(file, F_OK) == 0) {
        errno = EPERM;
        return -1;
    }
    return real(fd, address, length, flags);
}

int socket(int domain, int type, int protocol) {
    int (*real)(int, int, int) = dlsym(RTLD_NEXT, "socket");
    if (domain == AF_INET6 && getenv("SHIM_NO_IPV6")) {
        errno = EAFNOSUPPORT;
        return -1;
    }
    return real(domain, type, protocol);
}
