{#- Post-hook: the mart as Parquet of the snapshot named by SHALLOP_SNAPSHOT_ID; nothing without one.

    An environment variable and not a var: a var that changes with every refresh makes dbt parse
    the whole project again. `order_by` must be a key, so that the same events export the same rows
    in the same order. -#}
{% macro export_mart(order_by) %}
    {%- if execute and env_var("SHALLOP_SNAPSHOT_ID", "") -%}
        copy (select * from {{ this }} order by {{ order_by }})
        to {{ sql_text(
            env_var("SHALLOP_STORE_URI") ~ "/marts/" ~ env_var("SHALLOP_SNAPSHOT_ID")
            ~ "/" ~ this.identifier ~ ".parquet"
        ) }}
        (format parquet, compression zstd)
    {%- endif -%}
{% endmacro %}


{#- Post-hook: the raw objects that staging was loaded from, beside the marts of the snapshot. -#}
{% macro export_raw_objects() %}
    {%- if execute and env_var("SHALLOP_SNAPSHOT_ID", "") -%}
        copy (
            select raw_object, count(*) as n_events
            from {{ ref('stg_shop__events') }}
            group by raw_object
            order by raw_object
        )
        to {{ sql_text(
            env_var("SHALLOP_STORE_URI") ~ "/marts/" ~ env_var("SHALLOP_SNAPSHOT_ID")
            ~ "/raw_objects.parquet"
        ) }}
        (format parquet, compression zstd)
    {%- endif -%}
{% endmacro %}
