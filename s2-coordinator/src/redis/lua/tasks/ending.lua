-- Ending claims.

-- What the other parts use of it.
local release_task, hand_back, read_ending, end_claim

do

local ENDED_AS = { 'completed', 'retrying', 'failed', 'released', 'refused', 'blocked' }

-- What follows from a claim that has ended is said once more to whoever says so again: the first answer, or that it was ended
-- otherwise. `said` is how it is to end now, with so many tasks and events.
local function answer_before(rec, token, said, counts)
  local code, at, extra = find_end(rec, token)
  if not code or code > LAST_BY_HOLDER then
    return nil
  end
  local same = code == said or said == END.retrying and code == END.given_up
  if same and code == END.completed then
    same = #(extra and extra[1] or {}) / 2 == counts[1] and #(extra and extra[2] or {}) == counts[2] and
      (rec.state ~= DONE or (has(rec, FLAG.outcome) and read(rec.name16 .. 'o') or '') == counts[3])
  elseif same and code == END.blocked then
    same = #(extra or {}) / 2 == counts[1]
  end
  if not same then
    return { 'already', ENDED_AS[code] }
  end
  return { ENDED_AS[code], extra or at }
end

-- What a session says when it is done: result, evidence, tasks and events that follow.
local function complete(rec, said)
  local plans, wrong = plan_tasks(ARGV, said.tasks, said.task_count, rec.id, 1)
  if not plans then
    return wrong
  end
  local events
  if said.event_count > 0 then
    events, wrong = publish_outputs(ARGV, said.events, said.event_count)
    if not events then
      return wrong
    end
  end
  local params = '"session":"' .. rec.holder .. '","token":' .. int(rec.token) .. said.evidence
  local tasks = #plans > 0 and accept(plans) or {}
  local extra = (#tasks > 0 or events) and { tasks, events or {} } or nil
  remember_end(rec, rec.token, END.completed, 0, extra)
  if said.result ~= '' then
    write(rec.name16 .. 'o', said.result)
    with(rec, FLAG.outcome)
  elseif has(rec, FLAG.outcome) then
    drop(rec.name16 .. 'o')
    without(rec, FLAG.outcome)
  end
  finish(rec, DONE, END.outdone)
  note('completed', rec, params)
  tell(rec)
  return { 'completed', extra or 0 }
end

-- A task is tried again from then on.
local function retry_at(rec, at)
  if at <= now then
    return make_ready(rec, now)
  end
  move(rec, DELAYED, function()
    rec.since = at
    rec.key = key_of(rec)
    rec.till = at
  end)
end

local function fail_attempt(rec, said)
  rec.failures = rec.failures + 1
  add_run(rec, now, 'failed', said.reason)
  touch(rec)
  if said.mode == 'never' or rec.failures >= terms_of(rec).attempts then
    remember_end(rec, rec.token, END.given_up, 0)
    fail(rec, said.mode == 'never' and 'fatal' or 'attempts')
    return { 'failed' }
  end
  local at = now + (said.mode == 'after' and said.delay or backoff(rec.failures, said.random))
  remember_end(rec, rec.token, END.retrying, at)
  note('retried', rec, '"session":"' .. rec.holder .. '","token":' .. int(rec.token) .. ',"failures":' ..
    int(rec.failures) .. ',"reason":' .. cjson.encode(said.reason))
  retry_at(rec, at)
  tell(rec)
  return { 'retrying', at }
end

function release_task(rec)
  remember_end(rec, rec.token, END.released, 0)
  note('released', rec, '"session":"' .. rec.holder .. '","token":' .. int(rec.token))
  move(rec, READY)
  tell(rec)
  return { 'released' }
end

-- What a claim was granted is released.
function hand_back(session, request)
  local leases = granted_before(session, request) or ''
  for place = 1, #leases, 14 do
    local id, token = unpack_bytes('>I7I7', leases, place)
    local rec = find_task(id)
    if rec and holds(rec, token) then
      release_task(rec)
    end
  end
end

local function refuse(rec, said)
  local till = now + (said.delay or backoff(1, said.random))
  remember_end(rec, rec.token, END.refused, till)
  local session = find_session(rec.number)
  if session then
    back_off(session, rec, till)
  end
  note('refused', rec, '"session":"' .. rec.holder .. '","token":' .. int(rec.token) .. ',"reason":' ..
    cjson.encode(said.reason))
  -- Others may take it, also from its own queue.
  open_to_all(rec)
  return { 'refused', till }
end

local function block(rec, said)
  local plans, wrong = plan_tasks(ARGV, said.tasks, said.task_count, rec.id, 0)
  if not plans then
    return wrong
  end
  -- Help that is there already, under its key, may be the task itself.
  local from, itself = {}, false
  for _, on in ipairs(said.on) do
    if not find_task(on) then
      return { 'unknown_task', on }
    end
    itself = itself or on == rec.id
  end
  for _, plan in ipairs(plans) do
    itself = itself or plan.known == rec.id
    for _, edge in ipairs(plan.after or {}) do
      from[#from + 1] = edge[1]
    end
  end
  -- What is submitted must be able to start. What is there may wait for this task: that is a deadlock, and ends.
  local cycle = itself and { rec.id } or path_to(rec.id, from)
  if cycle then
    return { 'cycle', cycle }
  end
  local help, ids = accept(plans)
  local waits, seen_ = {}, {}
  for _, list in ipairs({ ids, said.on }) do
    for _, on in ipairs(list) do
      if not seen_[on] then
        seen_[on] = true
        waits[#waits + 1] = on
      end
    end
  end
  table.sort(waits)
  remember_end(rec, rec.token, END.blocked, 0, #help > 0 and help or nil)
  note('blocked', rec, '"session":"' .. rec.holder .. '","token":' .. int(rec.token) .. ',"reason":' ..
    cjson.encode(said.reason) .. ',"requires":"' .. string.gsub(said.requires, ' ', ', ') .. '","on":' .. quoted(waits))
  local again = deadlock.is_again(rec, waits, #said.on == 0 and said.reason)
  local patience = at_most(now + C.longest_wait, NEVER)
  move(rec, BLOCKED, function()
    rec.till = patience < NEVER and patience or 0
    write_answers(rec, waits)
    write(rec.name16 .. 'b', cmsgpack.pack({ said.reason, said.requires, now, said.any and 1 or 0, again and 1 or 0 }))
    with(rec, FLAG.blocker)
    if said.awaited then
      with(rec, FLAG.awaited)
    else
      without(rec, FLAG.awaited)
    end
  end)
  if again then
    deadlock.ask('blocked_again', rec.id, 'a task was released and is blocked on the same again', waits)
  end
  local unfinished, enough = 0, false
  for _, on in ipairs(waits) do
    enough = enough or said.any and find_task(on).state == DONE
  end
  for _, on in ipairs(waits) do
    if not enough and is_unfinished(on) then
      add_edge(rec, on, ON_FAILURE.run)
      unfinished = unfinished + 1
    end
  end
  deadlock.suspect(rec)
  if not find_session(rec.number) then
    desert(rec)
  elseif #waits > 0 and unfinished == 0 then
    proceed(rec)
  end
  tell(rec)
  return { 'blocked', #help > 0 and help or 0 }
end

-- Reads one ending: `<task> <token> <how> …`. Answers with it and where the next one begins.
function read_ending(place)
  local said = { name16 = name_of(ARGV[place]), token = tonumber(ARGV[place + 1]), how = ARGV[place + 2] }
  place = place + 3
  said.task_count = 0
  if said.how == 'complete' then
    said.result, said.evidence, said.task_count = ARGV[place], ARGV[place + 1], tonumber(ARGV[place + 2])
    said.tasks = place + 3
    said.event_count = tonumber(ARGV[said.tasks + said.task_count * TASK_PARTS])
    said.events = said.tasks + said.task_count * TASK_PARTS + 1
    place = said.events + said.event_count * EVENT_PARTS
    said.code, said.counts = END.completed, { said.task_count, said.event_count, said.result }
  elseif said.how == 'fail' then
    said.reason, said.mode, said.delay, said.random = ARGV[place], ARGV[place + 1], tonumber(ARGV[place + 2]),
      tonumber(ARGV[place + 3])
    said.code, place = END.retrying, place + 4
  elseif said.how == 'release' then
    said.code = END.released
  elseif said.how == 'refuse' then
    said.reason, said.delay, said.random = ARGV[place], tonumber(ARGV[place + 1]), tonumber(ARGV[place + 2])
    said.code, place = END.refused, place + 3
  elseif said.how == 'block' then
    said.reason, said.requires, said.awaited, said.any, said.on = ARGV[place], ARGV[place + 1], ARGV[place + 2] == '1',
      ARGV[place + 3] == '1', {}
    local count = tonumber(ARGV[place + 4])
    for nth = 1, count do
      said.on[nth] = tonumber(ARGV[place + 4 + nth])
    end
    place = place + 5 + count
    said.task_count, said.tasks = tonumber(ARGV[place]), place + 1
    place = said.tasks + said.task_count * TASK_PARTS
    said.code, said.counts = END.blocked, { said.task_count }
  end
  return said, place
end

function end_claim(said)
  local rec = find_named(said.name16)
  if not rec then
    return stale()
  end
  local before_ = answer_before(rec, said.token, said.code, said.counts)
  if before_ then
    return before_
  elseif not holds(rec, said.token) then
    return stale(rec)
  elseif said.how == 'complete' then
    return complete(rec, said)
  elseif said.how == 'fail' then
    return fail_attempt(rec, said)
  elseif said.how == 'release' then
    return release_task(rec)
  elseif said.how == 'refuse' then
    return refuse(rec, said)
  elseif said.how == 'block' then
    return block(rec, said)
  end
  -- An ending that is not allowed anyway: only whether there is a claim to end.
  return { 'held' }
end

end
