// Lets the n-th of some system calls of one process fail.
//
//   inject CALLS OBJECT ERRNO N REPORT -- COMMAND…
//
// CALLS: names, with commas. OBJECT: what the first argument has to be for a call to count: `file`,
// `pipe`, `socket`, `event` (a descriptor of that kind) or `any`. N = 0 only counts. REPORT receives
// `counted hit` and, of the one that failed, who made it.
//
// Counted are the calls of all threads of COMMAND from its first `getcwd` on (what comes before is the
// loader's and the language's own beginning), and of its newborn children until they execute
// something else; what they execute is left alone. The kernel asks us about each call (a seccomp user
// notification): nobody is traced, so waiting and signals are as ever. Linux 5.19 and root.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 8
// Tells that the daemon's own code has begun.
#define BEGIN SYS_getcwd

static const struct { const char *name; int number; } CALLS[] = {
#define CALL(name) { #name, SYS_##name }
    CALL(clone), CALL(clone3), CALL(execve), CALL(waitid), CALL(pidfd_open), CALL(pidfd_send_signal),
    CALL(epoll_pwait), CALL(epoll_ctl), CALL(openat), CALL(openat2), CALL(write), CALL(writev),
    CALL(pwrite64), CALL(renameat), CALL(renameat2), CALL(fsync), CALL(fdatasync), CALL(mmap),
    CALL(accept4), CALL(sendmsg), CALL(sendto), CALL(recvmsg), CALL(recvfrom), CALL(pipe2), CALL(socket),
    CALL(flock), CALL(read), CALL(getdents64), CALL(statx), CALL(kill), CALL(mprotect), CALL(unlinkat),
    CALL(fchmod), CALL(ftruncate), CALL(mkdirat), CALL(timerfd_settime), CALL(dup3), CALL(setsid),
    CALL(prlimit64), CALL(fcntl), CALL(pread64),
#ifdef SYS_epoll_wait
    CALL(epoll_wait), CALL(rename), CALL(open), CALL(unlink), CALL(mkdir),
#endif
};

static const struct { const char *name; int number; } ERRORS[] = {
#define ERROR(name) { #name, name }
    ERROR(ENOMEM), ERROR(EAGAIN), ERROR(EINTR), ERROR(EMFILE), ERROR(ENFILE), ERROR(ENOSPC), ERROR(EIO),
    ERROR(EDQUOT), ERROR(ECONNABORTED), ERROR(ENOBUFS), ERROR(EPERM), ERROR(EACCES), ERROR(ENOLCK),
    ERROR(EROFS), ERROR(EPIPE), ERROR(ESRCH), ERROR(ECONNRESET),
};

static void fail(const char *what) {
  fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
  exit(99);
}

static void wrong(const char *what, const char *value) {
  fprintf(stderr, "inject: %s: %s\n", what, value);
  exit(99);
}

static int calls(char *names, int *numbers) {
  int count = 0;
  numbers[count++] = BEGIN;
  for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
    int before = count;
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++)
      if (!strcmp(CALLS[i].name, name) && count < MOST) numbers[count++] = CALLS[i].number;
    if (count == before) wrong("unknown call", name);
  }
  return count;
}

static int error_number(const char *name) {
  for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
    if (!strcmp(ERRORS[i].name, name)) return ERRORS[i].number;
  wrong("unknown error", name);
  return 0;
}

// Asks for a notification of each of these calls, for this process and all that come of it.
static int filter(const int *numbers, int count) {
  struct sock_filter code[MOST + 3];
  int at = 0;
  code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (int i = 0; i < count; i++)
    code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)numbers[i], (unsigned char)(count - i), 0);
  code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
  struct sock_fprog program = { .len = (unsigned short)at, .filter = code };
  unsigned flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static int link_of(char *text, size_t size, int pid, const char *what, int number) {
  char path[64];
  if (number < 0) snprintf(path, sizeof path, "/proc/%d/%s", pid, what);
  else snprintf(path, sizeof path, "/proc/%d/%s/%d", pid, what, number);
  ssize_t length = readlink(path, text, size - 1);
  text[length < 0 ? 0 : length] = 0;
  return length > 0;
}

static int is_object(int pid, int fd, const char *kind) {
  char target[4096];
  if (!strcmp(kind, "any")) return 1;
  if (!link_of(target, sizeof target, pid, "fd", fd)) return 0;
  if (!strcmp(kind, "file")) return target[0] == '/' && strncmp(target, "/dev/", 5) && strncmp(target, "/proc/", 6);
  if (!strcmp(kind, "event")) return !strcmp(target, "anon_inode:[eventfd]");
  return !strncmp(target, kind, strlen(kind)) && target[strlen(kind)] == ':';
}

// The runtime's signal handler writes single bytes to a socket of its own, which can neither wait nor fail.
static int is_signal_pipe(const struct seccomp_data *call) {
  return call->nr == SYS_sendto && call->args[2] == 1;
}

static void report(const char *path, long counted, const char *hit) {
  char next[4096];
  snprintf(next, sizeof next, "%s.next", path);
  FILE *file = fopen(next, "we");
  if (!file) fail(next);
  fprintf(file, "%ld %s\n", counted, hit);
  if (fclose(file) || rename(next, path)) fail(path);
}

// Answers the kernel until nobody is left whom it could ask about.
static void serve(int listener, const char *command, const char *object, int error, long n, const char *path) {
  char itself[4096], exe[4096], hit[256] = "";
  if (!realpath(command, itself)) fail(command);
  long counted = 0;
  int begun = 0;
  for (;;) {
    struct pollfd waiting = { .fd = listener, .events = POLLIN };
    if (poll(&waiting, 1, -1) < 0 && errno != EINTR) fail("poll");
    if (waiting.revents & POLLHUP) break;
    struct seccomp_notif asked;
    memset(&asked, 0, sizeof asked);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked)) {
      if (errno == ENOENT || errno == EINTR) continue;
      fail("receive");
    }
    int pid = (int)asked.pid;
    struct seccomp_notif_resp answer = { .id = asked.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
    int ours = link_of(exe, sizeof exe, pid, "exe", -1) && !strcmp(exe, itself);
    if (ours && asked.data.nr == BEGIN) {
      begun = 1;
    } else if (ours && begun && !is_signal_pipe(&asked.data) && is_object(pid, (int)asked.data.args[0], object) &&
               ++counted == n) {
      answer.flags = 0;
      answer.error = -error;
      char name[64] = "", what[96] = "";
      link_of(what, sizeof what, pid, "fd", (int)asked.data.args[0]);
      char comm[64];
      snprintf(comm, sizeof comm, "/proc/%d/comm", pid);
      FILE *file = fopen(comm, "re");
      if (file) {
        if (fscanf(file, "%63[^\n]", name) != 1) name[0] = 0;
        fclose(file);
      }
      snprintf(hit, sizeof hit, "call=%d thread=%d name=%s first=%llx object=%s", asked.data.nr, pid, name,
               (unsigned long long)asked.data.args[0], what);
      report(path, counted, hit);
    }
    // ENOENT: it was killed meanwhile.
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) && errno != ENOENT) fail("answer");
  }
  report(path, counted, hit);
}

int main(int count, char **words) {
  if (count < 8 || strcmp(words[6], "--")) wrong("usage", "inject CALLS OBJECT ERRNO N REPORT -- COMMAND…");
  int numbers[MOST], how_many = calls(words[1], numbers), error = error_number(words[3]);
  // Where the listener is: told through memory, as any call may be one that waits for an answer.
  int *place = mmap(NULL, sizeof *place, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) fail("mmap");
  *place = -1;
  int pid = getpid(), server = fork();
  if (server < 0) fail("fork");
  if (server == 0) {
    // Twice, so that the daemon has no child that it does not know.
    if (fork() != 0) _exit(0);
    setsid();
    signal(SIGPIPE, SIG_IGN);
    close_range(3, ~0U, 0);
    int remote;
    while ((remote = __atomic_load_n(place, __ATOMIC_ACQUIRE)) == -1) usleep(200);
    int process = (int)syscall(SYS_pidfd_open, pid, 0);
    int listener = (int)syscall(SYS_pidfd_getfd, process, remote, 0);
    if (listener < 0) fail("take the listener");
    close(process);
    __atomic_store_n(place, -2, __ATOMIC_RELEASE);
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);
    serve(listener, words[7], words[2], error, atol(words[4]), words[5]);
    _exit(0);
  }
  waitpid(server, NULL, 0);
  int listener = filter(numbers, how_many);
  if (listener < 0) fail("install the filter");
  __atomic_store_n(place, listener, __ATOMIC_RELEASE);
  // Executing closes it.
  while (__atomic_load_n(place, __ATOMIC_ACQUIRE) != -2) sched_yield();
  execv(words[7], words + 7);
  fail(words[7]);
}
