{#- The kind of device that a user agent names: `mobile`, `desktop`, `tablet`, or `unknown` for what
    is no browser. Tried in this order:

    - televisions, then tablets by name, then Android without `Mobile`, as Google has its makers
      write it (https://developers.google.com/search/blog/2011/03/mo-better-to-also-detect-mobile-user)
    - what calls itself mobile, iPhone or Android; then systems of desktops

    An iPad asks for desktop pages by default and says that it is a Macintosh: it counts as a
    desktop. The families of `SHALLOP_INGEST__USER_AGENT=family` (`Chrome 128 / Android`) tell no
    tablets: those are `mobile` there. -#}
{% macro device_of(user_agent) -%}
    case
        when {{ is_bot_agent(user_agent) }} then 'unknown'
        when regexp_matches({{ user_agent }}, 'smart-?tv|googletv|appletv|android tv|bravia', 'i')
            then 'unknown'
        when regexp_matches({{ user_agent }}, 'ipad|tablet|kindle|silk/|playbook', 'i')
            then 'tablet'
        when regexp_matches({{ user_agent }}, ' / (Android|iOS)$') then 'mobile'
        when
            regexp_matches({{ user_agent }}, 'android', 'i')
            and not regexp_matches({{ user_agent }}, 'mobi', 'i')
            then 'tablet'
        when regexp_matches({{ user_agent }}, 'mobi|iphone|ipod|android|opera mini', 'i')
            then 'mobile'
        when
            regexp_matches(
                {{ user_agent }}, 'windows|macintosh|mac ?os|cros|chromeos|x11|linux', 'i'
            )
            then 'desktop'
        else 'unknown'
    end
{%- endmacro %}
