// A program of the scripted life that keeps its own book: an account of its runs that needs no daemon.
//
//   program BOOKS KIND
//
// BOOKS/NAME.REPLICA receives `begin PID` for each run, and `twice PID` when another run still lives.
// KIND: `server` says READY=1, makes a helper that outlives it unless it is ended with its family, and
// waits; `flaky` ends with 3 in its first two runs; `once` ends with 0. SIGUSR1: writes 150 lines.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void say_ready(void) {
  const char *path = getenv("NOTIFY_SOCKET");
  if (!path) return;
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  size_t length = strlen(path);
  if (length >= sizeof address.sun_path) exit(98);
  memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = 0;
  int out = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  // Twice: what is lost on the way is the daemon's affair, and it gets another chance with the next.
  for (int i = 0; i < 2; i++) sendto(out, "READY=1", 7, 0, (struct sockaddr *)&address, size);
  close(out);
}

static void lines(void) {
  char line[80];
  for (int i = 0; i < 150; i++) {
    int length = snprintf(line, sizeof line, "line %d of a page that fills the log until it has to be turned\n", i);
    if (write(1, line, (size_t)length) < 0) return;
  }
}

int main(int count, char **words) {
  sigset_t all;
  sigemptyset(&all);
  sigaddset(&all, SIGTERM);
  sigaddset(&all, SIGUSR1);
  sigprocmask(SIG_BLOCK, &all, NULL);
  if (count < 3) return 97;
  char path[4096];
  snprintf(path, sizeof path, "%s/%s.%s", words[1], getenv("ETERNAL_PROGRAM"), getenv("ETERNAL_REPLICA"));
  int book = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (book < 0) return 96;
  // A record lock, which goes with this process alone.
  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  const char *word = fcntl(book, F_SETLK, &lock) ? "twice" : "begin";
  char line[64];
  int length = snprintf(line, sizeof line, "%s %d\n", word, getpid());
  if (write(book, line, (size_t)length) != length) return 95;
  char pages[65536];
  ssize_t size = pread(book, pages, sizeof pages, 0);
  int runs = 0;
  for (ssize_t i = 0; i < size; i++) runs += pages[i] == '\n';

  printf("run %d\n", runs);
  fflush(stdout);
  if (!strcmp(words[2], "once")) return 0;
  if (!strcmp(words[2], "flaky") && runs <= 2) return 3;
  if (!strcmp(words[2], "server")) {
    if (fork() == 0) {
      sigprocmask(SIG_UNBLOCK, &all, NULL);
      for (;;) pause();
    }
    say_ready();
  }
  for (;;) {
    int signal = 0;
    sigwait(&all, &signal);
    if (signal == SIGTERM) return 0;
    lines();
  }
}
