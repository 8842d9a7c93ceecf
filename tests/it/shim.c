// System calls that fail, for LD_PRELOAD: what no test can have the real system do.
//
// SHIM_DENY=FILE       accept4 says EPERM as long as there is this file, as where a security module forbids it
// SHIM_BREAK=FILE      accept4 says EINVAL on the port that this file has, as on a listener that is one no more
// SHIM_HOLD=FILE       accept4 on the port that this file has does not return as long as it has it
// SHIM_NO_THREAD=FILE  pthread_create says EAGAIN as long as there is this file
// SHIM_NO_IPV6=1       socket has no family AF_INET6, as where the kernel was built without
// SHIM_WAITS=FILE      each epoll_wait adds a byte to this file

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int is_there(const char *variable) {
    const char *file = getenv(variable);
    return file && access(file, F_OK) == 0;
}

// Whether the file that this variable names has this listener's port.
static int has_port(const char *variable, int listener) {
    char digits[8] = "";
    const char *name = getenv(variable);
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) {
        return 0;
    }
    (void)!read(file, digits, sizeof digits - 1);
    close(file);
    struct sockaddr_in address = {0};
    socklen_t length = sizeof address;
    getsockname(listener, (struct sockaddr *)&address, &length);
    return address.sin_family == AF_INET && ntohs(address.sin_port) == atoi(digits);
}

int epoll_wait(int epfd, struct epoll_event *events, int room, int timeout) {
    int (*real)(int, struct epoll_event *, int, int) = dlsym(RTLD_NEXT, "epoll_wait");
    const char *file = getenv("SHIM_WAITS");
    int waits = file ? open(file, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (waits >= 0) {
        (void)!write(waits, "x", 1);
        close(waits);
    }
    return real(epfd, events, room, timeout);
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    int (*real)(int, struct sockaddr *, socklen_t *, int) = dlsym(RTLD_NEXT, "accept4");
    if (is_there("SHIM_DENY")) {
        errno = EPERM;
        return -1;
    }
    if (has_port("SHIM_BREAK", fd)) {
        errno = EINVAL;
        return -1;
    }
    while (has_port("SHIM_HOLD", fd)) {
        usleep(1000);
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

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
    return is_there("SHIM_NO_THREAD") ? EAGAIN : real(thread, attributes, run, argument);
}
