// Processor time of the server per streamed token: starts `strata serve` with the scripted model,
// reads STREAMS answers of TOKENS tokens at once and compares the process's clock before and after.
//
//   bench_stream_cpu STRATA MODEL_DIR [STREAMS 256] [TOKENS 400] [STEP_US 20000]
//
// STEP_US is the pace of the scripted model: at the default every token is an event and a write of
// its own, as it is with a model that computes.
#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

namespace {

using SteadyClock = std::chrono::steady_clock;

struct Setting {
  std::string binary;
  std::string model;
  int streams = 256;
  int tokens = 400;
  int step_us = 20000;
};

struct ServerProcess {
  pid_t pid = -1;
  int port = 0;
};

[[noreturn]] void give_up(const std::string& why) {
  fmt::print(stderr, "bench_stream_cpu: {}\n", why);
  std::exit(1);
}

std::string write_script() {
  std::string name = "/tmp/strata-stream-cpu-XXXXXX";
  const int file = mkstemp(name.data());
  if (file < 0) give_up("no temporary file");
  std::string text = R"({"text":"<|channel|>final<|message|>)";
  for (int i = 0; i < 4000; ++i) text += "word ";
  text += "\"}\n";
  if (write(file, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    give_up("the script could not be written");
  close(file);
  return name;
}

// The port of the ready line.
int read_port(int pipe) {
  std::string text;
  char bytes[512];
  for (ssize_t got = 0; (got = read(pipe, bytes, sizeof bytes)) > 0;) {
    text.append(bytes, static_cast<std::size_t>(got));
    const auto at = text.find("ready at http://127.0.0.1:");
    if (at != std::string::npos && text.find('\n', at) != std::string::npos)
      return std::atoi(text.c_str() + at + 26);
  }
  give_up("the server did not start");
}

ServerProcess start_server(const Setting& setting, const std::string& script) {
  int ends[2];
  if (pipe(ends) != 0) give_up("no pipe");
  ServerProcess out;
  out.pid = fork();
  if (out.pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    const auto streams = std::to_string(setting.streams);
    const auto pace = std::to_string(setting.step_us);
    execl(setting.binary.c_str(), "strata", "serve", setting.model.c_str(), "--load-format",
          "scripted", "--script", script.c_str(), "--script-delay-us", pace.c_str(), "--port", "0",
          "--max-num-seqs", streams.c_str(), "--max-num-batched-tokens", "2048", "--max-model-len",
          "4096", "--max-num-queued-reqs", "4096", "--log-level", "error", nullptr);
    std::_Exit(127);
  }
  close(ends[1]);
  out.port = read_port(ends[0]);
  return out;
}

// User and system time of a process, in steps of 10 ms.
double cpu_seconds(pid_t pid) {
  std::ifstream in(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(in, line);
  std::istringstream rest(line.substr(line.rfind(')') + 1));
  const std::vector<std::string> fields{std::istream_iterator<std::string>(rest), {}};
  const double ticks = std::stod(fields.at(11)) + std::stod(fields.at(12));
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

int connect_to(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    give_up("the server does not answer");
  return fd;
}

struct Client {
  int fd = -1;
  long events = 0;
  std::string tail;  // of what was read: a mark may be cut
};

// Counts events; true: the stream has ended.
bool take(Client& client, const char* bytes, std::size_t count) {
  client.tail.append(bytes, count);
  std::size_t at = 0;
  for (auto next = client.tail.find("data: ", at); next != std::string::npos;
       next = client.tail.find("data: ", at)) {
    ++client.events;
    at = next + 6;
  }
  const bool done = client.tail.find("[DONE]") != std::string::npos;
  client.tail.erase(0, std::max(at, client.tail.size() > 8 ? client.tail.size() - 8 : 0));
  return done;
}

struct Outcome {
  long events = 0;
  double wall_s = 0;
};

Outcome run_streams(int port, int streams, int tokens) {
  const auto body = fmt::format(
      R"({{"messages":[{{"role":"user","content":"hi"}}],"stream":true,"max_tokens":{}}})", tokens);
  const auto request = fmt::format(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
      body.size(), body);
  std::vector<Client> clients(static_cast<std::size_t>(streams));
  std::vector<pollfd> ready;
  for (auto& client : clients) {
    client.fd = connect_to(port);
    if (write(client.fd, request.data(), request.size()) < 0) give_up("the request was not sent");
    ready.push_back({client.fd, POLLIN, 0});
  }
  Outcome out;
  const auto begin = SteadyClock::now();
  char bytes[65536];
  for (int open = streams; open > 0;) {
    if (poll(ready.data(), ready.size(), 60'000) <= 0) give_up("the streams stand still");
    for (std::size_t i = 0; i < ready.size(); ++i) {
      if (ready[i].fd < 0 || ready[i].revents == 0) continue;
      const auto got = read(ready[i].fd, bytes, sizeof bytes);
      if (got <= 0) give_up("a stream was cut");
      if (!take(clients[i], bytes, static_cast<std::size_t>(got))) continue;
      out.events += clients[i].events;
      close(clients[i].fd);
      ready[i].fd = -1;
      --open;
    }
  }
  out.wall_s = std::chrono::duration<double>(SteadyClock::now() - begin).count();
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) give_up("usage: bench_stream_cpu STRATA MODEL_DIR [STREAMS] [TOKENS] [STEP_US]");
  Setting setting{argv[1], argv[2]};
  if (argc > 3) setting.streams = std::atoi(argv[3]);
  if (argc > 4) setting.tokens = std::atoi(argv[4]);
  if (argc > 5) setting.step_us = std::atoi(argv[5]);
  std::signal(SIGPIPE, SIG_IGN);
  const auto script = write_script();
  const auto server = start_server(setting, script);
  run_streams(server.port, setting.streams, 20);  // warm
  const double before = cpu_seconds(server.pid);
  const auto outcome = run_streams(server.port, setting.streams, setting.tokens);
  const double used = cpu_seconds(server.pid) - before;
  kill(server.pid, SIGKILL);
  waitpid(server.pid, nullptr, 0);
  unlink(script.c_str());
  const double tokens = static_cast<double>(setting.streams) * setting.tokens;
  fmt::print(R"({{"bench":"stream_cpu","streams":{},"tokens":{},"step_us":{},"events":{},)"
             R"("wall_s":{:.2f},"tokens_per_s":{:.0f},"cpu_s":{:.2f},"us_per_token":{:.2f}}})"
             "\n",
             setting.streams, static_cast<long>(tokens), setting.step_us, outcome.events,
             outcome.wall_s, tokens / outcome.wall_s, used, used / tokens * 1e6);
  return 0;
}
