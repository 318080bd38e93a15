{#- Events that are one step of a session for the model, as an SQL tuple. -#}
{% macro step_event_names() -%}
    ({% for name in var("step_event_names") %}{{ sql_text(name) }}{{ ", " if not loop.last }}{% endfor %})
{%- endmacro %}
