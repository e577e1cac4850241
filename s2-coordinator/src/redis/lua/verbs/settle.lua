-- settle (<topic> <group> <incarnation> <consumer> <n> (<position> <delivery> <verb> …)*)*
--
-- The verbs: `ack`; `commit <said> <n> <events>`; `nack <delay> <random> <has reason> <reason>`, where the delay may be
-- empty; `dead <reason>`; `acks <count>`, for so many positions in a row.

local function finish(topic, group, cell, state)
  unindex(group, cell)
  forgive(group, cell)
  cell.state, cell.since = state, now
  save_cell(group, cell)
  after_settling(topic, group, cell)
end

local function give_back(topic, group, cell, consumer, delay, random, reason)
  local at = now + (tonumber(delay) or backoff(cell.attempts, random))
  local name = handler(group, consumer)
  unindex(group, cell)
  fail(group, cell, name, now, 'nacked', reason, at)
  if at <= now then
    make_ready(group, cell, false)
  else
    cell.state, cell.at, cell.suspect = DELAYED, at, false
    group.returning = group.returning + 1
    save_cell(group, cell)
    arm_cell(topic, group, cell, at)
  end
  return { 'retrying', at }
end

local function commit(topic, group, position, said, from, count)
  local out, wrong = publish_outputs(ARGV, from, count)
  if not out then
    return wrong
  end
  local cell = find_cell(group, position)
  local extra = find_extra(group, cell)
  extra.said, extra.out = said, out
  save_extra(group, cell, extra)
  finish(topic, group, cell, COMMITTED)
  return { 'committed', out }
end

local function bury_now(topic, group, cell, position, kind, reason)
  local id = bury(topic, group, cell, now, kind, reason)
  return id and { 'dead', id } or { 'forgotten', position + 1 }
end

-- Acks of what was handed out once, all alike: written in one go.
local function new_run(group, consumer)
  return { group = group, consumer = consumer, from = 0, count = 0, settled = 0 }
end

local function write_run(run)
  if run.count > 0 then
    fill(run.group, run.from, run.count, run.acked)
    run.settled, run.count = run.settled + run.count, 0
  end
end

local function ack_in_run(run, position, delivery)
  local group = run.group
  if group.revived > 0 or position < group.first or position >= group.cursor then
    return false
  end
  if position >= run.from and position < run.from + run.count then
    -- Said twice.
    return delivery == run.delivery
  end
  local raw = raw_cell(group, position)
  if raw ~= run.raw then
    local state, flags, consumer, current_delivery, born, attempts, _, at = struct.unpack(CELL, raw)
    if state ~= IN_FLIGHT or flags ~= 0 or consumer ~= run.consumer then
      return false
    end
    write_run(run)
    run.raw, run.delivery = raw, current_delivery
    run.acked = struct.pack(CELL, ACKED, 0, consumer, current_delivery, born, attempts, now, at)
  end
  if delivery ~= run.delivery then
    return false
  end
  if position ~= run.from + run.count or run.count == 0 then
    write_run(run)
    run.from = position
  end
  run.count = run.count + 1
  return true
end

local function end_run(topic, run)
  write_run(run)
  if run.settled > 0 then
    local group = run.group
    group.in_flight = at_least(group.in_flight - run.settled, 0)
    local member = find_member(group, run.consumer)
    if member then
      member.in_flight = at_least(member.in_flight - run.settled, 0)
      save_member(group, run.consumer, member)
    end
    run.settled, run.raw = 0, nil
    advance(group)
  end
end

-- Settles one delivery; answers with what became of it, and where its arguments end.
local function settle(topic, group, consumer, position, delivery, verb, place)
  local said, events, last, reason
  if verb == 'commit' then
    said, events = ARGV[place], tonumber(ARGV[place + 1])
    last = place + 2 + events * EVENT_PARTS
  elseif verb == 'nack' then
    reason, last = ARGV[place + 2] == '1' and ARGV[place + 3], place + 4
  elseif verb == 'dead' then
    last = place + 1
  else
    last = place
  end
  if not group then
    return { 'stale', false }, last
  end
  local before, cell = answer_before(group, position, consumer, delivery, verb, said)
  if before then
    return before, last
  elseif verb == 'ack' then
    finish(topic, group, cell, ACKED)
    return 1, last
  elseif verb == 'commit' then
    return commit(topic, group, position, said, place + 2, events), last
  elseif verb == 'dead' then
    return bury_now(topic, group, cell, position, 'refused', ARGV[place]), last
  elseif cell.attempts >= group.deliveries then
    return bury_now(topic, group, cell, position, 'nacked', reason), last
  end
  return give_back(topic, group, cell, consumer, ARGV[place], tonumber(ARGV[place + 1]), reason), last
end

-- Acks positions in a row: as far as they are alike, in one go. Answers how many.
local function ack_alike(run, position, delivery, count)
  local group = run.group
  if position < group.first or position + count > group.cursor then
    return 0
  end
  if position < run.from + run.count and position + count > run.from then
    return 0
  end
  local page, _, offset = page_of(group, position)
  local n = at_most(count, PAGE - position % PAGE)
  if not (n == PAGE and page == run.whole) then
    local raw = string.sub(page, offset + 1, offset + CELL_BYTES)
    local all = string.rep(raw, n)
    if (n == PAGE and page or string.sub(page, offset + 1, offset + n * CELL_BYTES)) ~= all then
      return 0
    end
    run.whole = all
  end
  if not ack_in_run(run, position, delivery) then
    return 0
  end
  run.count = run.count + n - 1
  return n
end

local function verb()
  local answers, settled, place = {}, {}, 5
  while place <= #ARGV do
    local name, incarnation, consumer = ARGV[place + 1], tonumber(ARGV[place + 2]), tonumber(ARGV[place + 3])
    local items, first = tonumber(ARGV[place + 4]), tonumber(ARGV[place + 5])
    local many = ARGV[place + 7] == 'acks' and tonumber(ARGV[place + 8]) or 1
    local group, topic = find_place(incarnation, consumer, ARGV[place], name, first, first + many - 1)
    local run = group and new_run(group, consumer)
    place = place + 5
    for _ = 1, items do
      local position, delivery, what = tonumber(ARGV[place]), tonumber(ARGV[place + 1]), ARGV[place + 2]
      local count = 1
      place = place + 3
      if what == 'acks' then
        what, count, place = 'ack', tonumber(ARGV[place]), place + 1
      end
      while count > 0 do
        local alike = run and what == 'ack' and ack_alike(run, position, delivery, count) or 0
        if alike > 0 then
          answers[#answers + 1] = alike
        elseif run and what == 'ack' and ack_in_run(run, position, delivery) then
          answers[#answers + 1], alike = 1, 1
        else
          if run then
            end_run(topic, run)
          end
          answers[#answers + 1], place = settle(topic, group, consumer, position, delivery, what, place)
          alike = 1
        end
        position, count = position + alike, count - alike
      end
    end
    if group then
      end_run(topic, run)
      settled[#settled + 1] = group
    end
  end
  local trimmed = {}
  for _, group in ipairs(settled) do
    local topic = topics[group.topic]
    serve(topic, group)
    if not trimmed[topic] then
      trimmed[topic] = true
      trim(topic)
    end
  end
  return { 'ok', answers }
end
