/* A node on libcoap that opens one DTLS session, with a shared key, and does everything over it: it says
 * that it is alive as a client, and serves its resources as a server to whom it has told so.
 *
 *     coap_dtls_node ADDRESS PORT IDENTITY KEY UID
 *
 * Standard output: `alive 2.04` for each answer to a sign of life, `put led 1` for each write, `observed`
 * when somebody begins to observe.
 */

#include <coap3/coap.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char led[8] = "0";
static char count[16] = "0";
/* Longer than a block, and than a datagram. */
static char poem[3000];
static int connected = 1;

static void get_text(coap_resource_t *resource, coap_session_t *session, const coap_pdu_t *request,
                     const coap_string_t *query, coap_pdu_t *response) {
  const char *value = coap_resource_get_userdata(resource);
  coap_opt_iterator_t options;
  coap_opt_t *observe = coap_check_option(request, COAP_OPTION_OBSERVE, &options);
  if (observe && coap_decode_var_bytes(coap_opt_value(observe), coap_opt_length(observe)) == 0 &&
      coap_pdu_get_type(request) == COAP_MESSAGE_CON && value == count)
    puts("observed");
  coap_pdu_set_code(response, COAP_RESPONSE_CODE_CONTENT);
  coap_add_data_large_response(resource, session, request, response, query,
                               COAP_MEDIATYPE_TEXT_PLAIN, -1, 0, strlen(value),
                               (const uint8_t *)value, NULL, NULL);
}

static void put_led(coap_resource_t *resource, coap_session_t *session, const coap_pdu_t *request,
                    const coap_string_t *query, coap_pdu_t *response) {
  size_t length;
  const uint8_t *data;
  (void)resource, (void)session, (void)query;
  if (!coap_get_data(request, &length, &data) || length != 1 || (*data != '0' && *data != '1')) {
    coap_pdu_set_code(response, COAP_RESPONSE_CODE_BAD_REQUEST);
    return;
  }
  led[0] = (char)*data;
  printf("put led %s\n", led);
  coap_pdu_set_code(response, COAP_RESPONSE_CODE_CHANGED);
}

static coap_response_t answered(coap_session_t *session, const coap_pdu_t *sent,
                                const coap_pdu_t *received, const coap_mid_t mid) {
  coap_pdu_code_t code = coap_pdu_get_code(received);
  (void)session, (void)sent, (void)mid;
  printf("alive %d.%02d\n", code >> 5, code & 31);
  return COAP_RESPONSE_OK;
}

static int happened(coap_session_t *session, const coap_event_t event) {
  (void)session;
  if (event == COAP_EVENT_DTLS_CLOSED || event == COAP_EVENT_DTLS_ERROR)
    connected = 0;
  return 0;
}

static coap_resource_t *serve(coap_context_t *context, const char *path, char *value) {
  coap_resource_t *resource = coap_resource_init(coap_make_str_const(path), 0);
  coap_resource_set_userdata(resource, value);
  coap_register_request_handler(resource, COAP_REQUEST_GET, get_text);
  coap_add_resource(context, resource);
  return resource;
}

static void alive(coap_session_t *session, const char *uid) {
  char payload[80];
  int length = snprintf(payload, sizeof payload, "alive:%s", uid);
  coap_pdu_t *pdu = coap_new_pdu(COAP_MESSAGE_CON, COAP_REQUEST_CODE_POST, session);
  coap_add_option(pdu, COAP_OPTION_URI_PATH, 5, (const uint8_t *)"alive");
  coap_add_data(pdu, (size_t)length, (const uint8_t *)payload);
  coap_send(session, pdu);
}

static int resolve(const char *host, const char *port, coap_address_t *to) {
  struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST}, *found;
  if (getaddrinfo(host, port, &hints, &found))
    return 0;
  coap_address_init(to);
  to->size = found->ai_addrlen;
  memcpy(&to->addr, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return 1;
}

int main(int argc, char **argv) {
  coap_address_t bridge;
  if (argc != 6 || !resolve(argv[1], argv[2], &bridge)) {
    fprintf(stderr, "usage: %s ADDRESS PORT IDENTITY KEY UID\n", argv[0]);
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (size_t at = 0; at + 1 < sizeof poem; at++)
    poem[at] = (char)('a' + at % 26);

  coap_startup();
  coap_context_t *context = coap_new_context(NULL);
  coap_context_set_block_mode(context, COAP_BLOCK_USE_LIBCOAP | COAP_BLOCK_SINGLE_BODY);
  coap_register_response_handler(context, answered);
  coap_register_event_handler(context, happened);
  serve(context, "name", "libcoap");
  serve(context, "poem", poem);
  coap_register_request_handler(serve(context, "led", led), COAP_REQUEST_PUT, put_led);
  coap_resource_t *counter = serve(context, "count", count);
  coap_resource_set_get_observable(counter, 1);

  coap_dtls_cpsk_t key = {.version = COAP_DTLS_CPSK_SETUP_VERSION};
  key.psk_info.identity.s = (const uint8_t *)argv[3];
  key.psk_info.identity.length = strlen(argv[3]);
  key.psk_info.key.s = (const uint8_t *)argv[4];
  key.psk_info.key.length = strlen(argv[4]);
  coap_session_t *session =
      coap_new_client_session_psk2(context, NULL, &bridge, COAP_PROTO_DTLS, &key);
  if (!session)
    return 1;

  for (unsigned second = 0; connected; second++) {
    if (second % 5 == 0)
      alive(session, argv[5]);
    coap_tick_t now, until;
    coap_ticks(&now);
    until = now + COAP_TICKS_PER_SECOND;
    while (now < until && connected) {
      uint32_t left = (uint32_t)((until - now) * 1000 / COAP_TICKS_PER_SECOND);
      coap_io_process(context, left ? left : COAP_IO_NO_WAIT);
      coap_ticks(&now);
    }
    snprintf(count, sizeof count, "%u", second + 1);
    coap_resource_notify_observers(counter, NULL);
  }
  coap_session_release(session);
  coap_free_context(context);
  coap_cleanup();
  return 1;
}
