{#- Addresses of the raw objects in the store; with a relation, of those it has not loaded yet.
    Compared by name, not by time: an object that lands late, in an hour long past, is new. -#}
{% macro raw_objects(loaded=none) %}
    {%- if not execute -%}{{ return([]) }}{%- endif -%}
    {%- set pattern = env_var("SHALLOP_STORE_URI") ~ "/raw/events/**/*.parquet" -%}
    {%- set found -%}
        select file from glob({{ sql_text(pattern) }})
        {% if loaded is not none -%}
            where file not in (select distinct raw_object from {{ loaded }})
        {%- endif %}
        order by file
    {%- endset -%}
    {{ return(run_query(found).columns[0].values() | list) }}
{% endmacro %}


{#- The rows of raw objects; with none, no rows of the same columns. -#}
{% macro read_raw(objects) %}
    {%- if objects -%}
        read_parquet(
            [{% for object in objects %}{{ sql_text(object) }}{{ ", " if not loop.last }}{% endfor %}],
            hive_partitioning = true,
            hive_types = {'date': date, 'hour': integer},
            union_by_name = true,
            filename = 'raw_object'
        )
    {%- else -%}
        (
            select
                {% for name, type in raw_columns().items() %}
                    null::{{ type }} as {{ adapter.quote(name) }},
                {% endfor %}
                null::varchar as raw_object
            where false
        )
    {%- endif -%}
{% endmacro %}


{#- Columns of a raw event; tested equal to the event contract. -#}
{% macro raw_columns() %}
    {{ return({
        "event_id": "varchar",
        "event_name": "varchar",
        "occurred_at": "timestamptz",
        "received_at": "timestamptz",
        "visitor_id": "varchar",
        "user_id": "varchar",
        "session_id": "varchar",
        "items": item_list_type(),
        "item_list_id": "varchar",
        "recommendation_id": "varchar",
        "value": "double",
        "currency": "varchar",
        "page_url": "varchar",
        "referrer": "varchar",
        "user_agent": "varchar",
        "ip_prefix": "varchar",
        "consent": "varchar",
        "source": "varchar",
        "schema_version": "smallint",
        "extra": "varchar",
    }) }}
{% endmacro %}


{% macro item_list_type() -%}
    struct(
        item_id varchar, item_name varchar, item_category varchar,
        price double, quantity integer, "index" integer
    )[]
{%- endmacro %}


{% macro sql_text(value) -%}
    '{{ value | replace("'", "''") }}'
{%- endmacro %}
