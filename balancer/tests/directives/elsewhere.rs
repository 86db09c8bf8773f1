//! Directives that answers to plain requests do not show: the tests that show what they do, or why none does.

/// Of one test of that file: in the configurations that it starts, these stand.
pub struct Shown {
    pub file: &'static str,
    pub test: &'static str,
    pub directives: &'static [&'static str],
}

const fn by(file: &'static str, test: &'static str, directives: &'static [&'static str]) -> Shown {
    Shown { file, test, directives }
}

pub const SHOWN_ELSEWHERE: &[Shown] = &[
    by(
        "answers.rs",
        "a_body_is_in_a_file_where_that_is_asked_for_and_reaches_the_next_server_whole",
        &["client_body_in_file_only", "client_body_temp_path"],
    ),
    by(
        "answers.rs",
        "answers_are_no_faster_than_the_limit_from_wherever_they_come",
        &["limit_rate", "limit_rate_after"],
    ),
    by(
        "choices.rs",
        "a_key_goes_elsewhere_where_its_server_has_more_than_its_share",
        &["hash_balance_factor"],
    ),
    by("choices.rs", "least_time_leaves_out_the_server_that_took_long", &["least_time"]),
    by("choices.rs", "random_two_takes_the_one_that_has_less_to_do_and_random_any", &["random"]),
    by("clients.rs", "a_client_that_stops_in_its_body_is_not_waited_for", &["client_body_timeout"]),
    by(
        "clients.rs",
        "who_took_too_long_or_is_told_nothing_is_reset_where_the_configuration_says_so",
        &["reset_timedout_connection"],
    ),
    by(
        "slow_clients.rs",
        "a_body_that_drips_is_answered_with_408_and_its_connection_ends",
        &["client_body_min_rate"],
    ),
    by(
        "slow_clients.rs",
        "a_head_that_drips_is_answered_with_408_and_its_connection_ends",
        &["client_header_min_rate"],
    ),
    by("clients.rs", "a_slow_head_has_one_deadline_from_its_first_byte", &["client_header_timeout"]),
    by(
        "control.rs",
        "a_reload_takes_the_new_configuration_and_keeps_the_old_one_when_it_is_bad",
        &["events", "http", "pid"],
    ),
    by("control.rs", "as_a_daemon_the_caller_gets_its_prompt_back", &["daemon"]),
    by("control.rs", "keepalive_min_timeout_bounds_the_end_of_idle_clients", &["keepalive_min_timeout"]),
    by("docs.rs", "the_tables_are_those_of_the_program", &["ops_listen"]),
    by("guard.rs", "errors_go_to_the_log_of_their_block", &["error_log"]),
    by(
        "guard.rs",
        "no_more_requests_at_once_than_the_limit_and_a_place_is_free_again_after_the_answer",
        &["limit_conn", "limit_conn_zone"],
    ),
    by("http2.rs", "a_grpc_call_passes_with_its_trailers", &["grpc_pass"]),
    by("http2.rs", "one_port_serves_both_versions_in_clear_text_and_over_tls", &["http2"]),
    by("http2.rs", "trailers_of_an_origin_pass_when_they_are_asked_for", &["proxy_pass_trailers"]),
    by("http2.rs", "who_opens_no_window_loses_the_stream_and_not_the_connection", &["send_timeout"]),
    by("pages.rs", "a_charset_is_named_where_a_text_does_not_say_its_own", &["override_charset"]),
    by("pages.rs", "logs_may_have_variables_in_their_names_and_may_be_packed", &["access_log", "log_format"]),
    by("picks.rs", "we_choose_the_servers_that_nginx_chooses", &["hash", "ip_hash", "least_conn"]),
    by("plus.rs", "a_browser_shows_the_live_page_with_servers_and_zones", &["dashboard"]),
    by(
        "plus.rs",
        "a_server_that_fails_its_checks_gets_no_requests_until_it_passes_again",
        &["body", "header", "health_check", "match", "status"],
    ),
    by("plus.rs", "a_session_that_was_learnt_leads_back_to_its_server_over_a_reload", &["sticky"]),
    by(
        "plus.rs",
        "servers_are_added_changed_and_removed_at_run_time_and_a_state_file_keeps_them",
        &["api", "state", "upstream", "zone"],
    ),
    by(
        "plus.rs",
        "who_finds_all_servers_full_waits_in_turn_and_who_finds_the_queue_full_is_refused",
        &["queue"],
    ),
    by("plus.rs", "zones_connections_and_requests_are_counted_as_plus_shows_them", &["status_zone"]),
    by(
        "process.rs",
        "a_request_whose_client_left_goes_on_when_proxy_ignore_client_abort_says_so",
        &["proxy_ignore_client_abort"],
    ),
    by("process.rs", "a_ticket_opens_wherever_its_ssl_session_ticket_key_is", &["ssl_session_ticket_key"]),
    by(
        "process.rs",
        "an_origin_that_takes_no_body_is_left_after_proxy_send_timeout",
        &["proxy_send_timeout"],
    ),
    by(
        "process.rs",
        "clients_of_http2_are_told_the_limits_of_the_configuration",
        &["http2_body_preread_size", "http2_max_concurrent_streams"],
    ),
    by(
        "process.rs",
        "connections_to_upstreams_have_tcp_keepalive_where_proxy_socket_keepalive_says_so",
        &["proxy_socket_keepalive"],
    ),
    by("process.rs", "gzip_comp_level_packs_more_or_less", &["gzip_comp_level"]),
    by(
        "process.rs",
        "ip_hash_ipv6_bits_keeps_a_client_whose_privacy_address_changes",
        &["ip_hash_ipv6_bits"],
    ),
    by("process.rs", "no_more_connections_than_worker_connections_are_served", &["worker_connections"]),
    by("process.rs", "root_becomes_the_user_of_the_configuration_and_nobody_else_becomes_another", &["user"]),
    by(
        "process.rs",
        "upstreams_are_told_of_the_client_in_the_proxy_protocol_for_each_request_anew",
        &["proxy_protocol"],
    ),
    by("process.rs", "without_a_master_process_there_is_one_worker", &["master_process", "worker_processes"]),
    by("process.rs", "worker_priority_is_the_nice_value_of_each_thread", &["worker_priority"]),
    by("process.rs", "worker_rlimit_nofile_is_the_limit_of_open_files", &["worker_rlimit_nofile"]),
    by("process.rs", "worker_shutdown_timeout_bounds_a_quit", &["worker_shutdown_timeout"]),
    by(
        "relay.rs",
        "an_answer_that_comes_long_before_the_body_ends_says_that_both_connections_end",
        &["proxy_request_buffering"],
    ),
    by("relay.rs", "the_host_of_the_request_line_outranks_the_header", &["listen", "server", "server_name"]),
    by(
        "resolver.rs",
        "a_name_server_that_says_nothing_is_waited_for_no_longer_than_that",
        &["resolver_timeout"],
    ),
    by("resolver.rs", "a_target_with_variables_is_looked_up_and_remembered", &["resolver"]),
    by(
        "retry.rs",
        "a_server_that_says_nothing_is_a_504_and_its_connection_is_closed",
        &["proxy_read_timeout"],
    ),
    by("retry.rs", "a_server_that_takes_no_connection_in_time_is_a_504", &["proxy_connect_timeout"]),
    by(
        "retry.rs",
        "listed_statuses_go_to_the_next_server_and_the_last_one_answers_itself",
        &["proxy_next_upstream"],
    ),
    by("retry.rs", "no_more_idle_connections_are_kept_than_keepalive_says", &["keepalive"]),
    by(
        "slow_readers.rs",
        "a_slow_reader_slows_the_source_where_nothing_or_no_more_may_be_held",
        &["proxy_buffering", "proxy_buffers", "proxy_max_temp_file_size"],
    ),
    by("slow_readers.rs", "without_a_folder_for_it_nothing_is_held_and_nothing_lost", &["proxy_temp_path"]),
    by(
        "tls.rs",
        "a_client_that_does_not_prove_itself_gets_a_page",
        &["ssl_client_certificate", "ssl_verify_client"],
    ),
    by(
        "tls.rs",
        "a_key_under_a_password_is_opened_by_the_password_file",
        &["ssl_certificate", "ssl_certificate_key", "ssl_password_file"],
    ),
    by(
        "tls.rs",
        "a_revoked_client_is_refused_and_the_authoritys_word_is_stapled",
        &["ssl_crl", "ssl_stapling", "ssl_stapling_file"],
    ),
    by(
        "tls.rs",
        "a_session_is_resumed_by_ticket_and_by_cache_until_its_time_is_over",
        &["ssl_session_cache", "ssl_session_tickets", "ssl_session_timeout"],
    ),
    by(
        "tls.rs",
        "an_upstream_is_named_checked_and_kept",
        &[
            "proxy_ssl_certificate",
            "proxy_ssl_certificate_key",
            "proxy_ssl_name",
            "proxy_ssl_server_name",
            "proxy_ssl_trusted_certificate",
            "proxy_ssl_verify",
        ],
    ),
    by("tls.rs", "the_handshakes_name_chooses_the_server_and_its_certificate", &["ssl_reject_handshake"]),
];

/// What no request can show.
pub const EXCUSED: &[(&str, &str)] = &[
    ("accept_mutex", "only `off` is taken"),
    ("use", "only `epoll` is taken"),
    ("tcp_nodelay", "bytes are the same, and their times on the loopback too"),
    ("open_log_file_cache", "how often a file is opened; the log is the same"),
    ("ssl_early_data", "only `off` is taken"),
    ("lingering_close", "a client sees it where its own bytes are under way, which no script can time"),
    ("lingering_time", "as `lingering_close`"),
    ("lingering_timeout", "as `lingering_close`"),
    ("grpc_connect_timeout", "as `proxy_connect_timeout`, from the same code"),
    ("grpc_send_timeout", "as `proxy_send_timeout`, from the same code"),
    ("grpc_socket_keepalive", "as `proxy_socket_keepalive`, from the same code"),
];
