{#- What user agents of programs that visit shops have in them, as regular expressions without
    regard to case; the families that `SHALLOP_INGEST__USER_AGENT=family` keeps match as well.

    Not here on purpose: libraries of servers (python-requests, okhttp, axios, analytics-node, …). A
    program that reads pages sends no events unless it runs their scripts, as those below do. An
    event from a library was sent by the shop's own server, for an honest visitor. -#}
{% macro bot_agents() %}
    {{ return([
        "bots?([^a-z]|$)",
        "crawl",
        "spider",
        "slurp",
        "scrap(y|er)",
        "archiver",
        "httrack",
        "preview",
        "external(hit|agent|fetcher)",
        "mediapartners|feedfetcher|apis-google|googleother|google-(inspection|read-aloud)",
        "(chatgpt|claude|perplexity)-(user|web)",
        "headless|phantomjs|slimerjs",
        "puppeteer|playwright|selenium|webdriver|cypress/",
        "lighthouse|page ?speed|gtmetrix|webpagetest|ptst/",
        "monitoring|uptime|pingdom|statuscake|site24x7|synthetic|checkly",
    ]) }}
{% endmacro %}


{#- Whether a user agent is a program's; Cubot is a maker of phones. -#}
{% macro is_bot_agent(user_agent) -%}
    regexp_matches(
        regexp_replace({{ user_agent }}, 'cubot', '', 'gi'),
        {{ sql_text(bot_agents() | join("|")) }},
        'i'
    )
{%- endmacro %}
