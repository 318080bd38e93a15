with ranked as (

    select
        *,
        lead(score) over (order by rank) as next_score,
        max(rank) over () as last_rank,
        count(*) over () as n_items
    from {{ ref('popularity') }}

)

select * from ranked
where next_score > score or last_rank != n_items
