// The only program in the lab's bare image: what a distroless container has.
//   bare                      wait to be told to stop (also the pods' pause program)
//   bare serve PORT           answer every TCP connection on PORT with an HTTP answer
//   bare fetch ADDRESS PORT   send an HTTP request, print the answer; 1 when there is none in 5 s
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int serve(int port)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
	static const char text[] =
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nbare\n";
	char request[2048];

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&here, sizeof(here)) || listen(fd, 16))
		return perror("bare serve"), 1;
	for (;;) {
		int client = accept(fd, NULL, NULL);

		if (client < 0)
			continue;
		if (read(client, request, sizeof(request)) >= 0 &&
		    write(client, text, sizeof(text) - 1) < 0)
			perror("bare serve: write");
		close(client);
	}
}

static int fetch(const char *address, int port)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct timeval limit = {.tv_sec = 5};
	static const char request[] = "GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n";
	char answer[4096];
	ssize_t n;

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (inet_pton(AF_INET, address, &there.sin_addr) != 1)
		return fprintf(stderr, "bare fetch: not an address: %s\n", address), 2;
	if (connect(fd, (struct sockaddr *)&there, sizeof(there)) ||
	    write(fd, request, sizeof(request) - 1) < 0)
		return perror("bare fetch"), 1;
	while ((n = read(fd, answer, sizeof(answer))) > 0)
		fwrite(answer, 1, n, stdout);
	return n < 0;
}

static void stop(int sig) { _exit(sig == SIGTERM ? 0 : 130); }

int main(int argc, char **argv)
{
	signal(SIGTERM, stop);
	signal(SIGINT, stop);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(atoi(argv[2]));
	if (argc == 4 && !strcmp(argv[1], "fetch"))
		return fetch(argv[2], atoi(argv[3]));
	for (;;)
		pause();
}
